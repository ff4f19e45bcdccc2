"""Whether safetensors and their config are those of a language model: yes, unless they are known to be something else.

A language model that passed as something else would be measured by nobody, while a classifier that is taken for a
language model only has to be logged in another way. So the lists here name what does not generate.
"""

from __future__ import annotations

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles

_TEXT = """
albert bert big_bird camembert canine convbert data2vec-text deberta deberta-v2 distilbert electra ernie esm eurobert fnet
funnel ibert layoutlm layoutlmv2 layoutlmv3 longformer luke lxmert markuplm megatron-bert mobilebert modernbert mpnet mra
nomic_bert nystromformer rembert roberta roberta-prelayernorm roc_bert roformer splinter squeezebert tapas xlm-roberta
xlm-roberta-xl xmod yoso
"""
_PICTURES = """
beit bit convnext convnextv2 cvt data2vec-vision deit depth_anything detr conditional_detr deformable_detr dinat dinov2
dinov2_with_registers dinov3_convnext dinov3_vit dpt efficientnet focalnet glpn hiera ijepa levit mask2former maskformer
mobilenet_v1 mobilenet_v2 mobilevit mobilevitv2 oneformer poolformer pvt pvt_v2 regnet resnet rt_detr rt_detr_v2 sam
segformer swiftformer swin swinv2 table-transformer timesformer timm_wrapper upernet videomae vit vit_mae vit_msn vitdet
vivit yolos
"""
_TWO_KINDS = "align altclip chinese_clip clap clip clipseg groupvit owlvit owlv2 siglip siglip2 vilt xclip"
_SERIES = """
audio-spectrogram-transformer data2vec-audio hubert sew sew-d unispeech unispeech-sat wav2vec2 wav2vec2-bert
wav2vec2-conformer wavlm patchtst patchtsmixer
"""
_ENCODERS = frozenset(f"{_TEXT} {_PICTURES} {_TWO_KINDS} {_SERIES}".split())
"""`model_type` of encoders, as transformers calls them; what is not among them may generate."""
_HEADS = (
    "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice", "ForMaskedLM",
    "ForNextSentencePrediction", "ForPreTraining", "ForCTC", "ForAudioFrameClassification", "ForXVector",
    "ForImageClassification", "ForVideoClassification", "ForAudioClassification", "ForMaskedImageModeling",
    "ForObjectDetection", "ForZeroShotObjectDetection", "ForSegmentation", "ForSemanticSegmentation",
    "ForInstanceSegmentation", "ForUniversalSegmentation", "ForImageSegmentation", "ForDepthEstimation",
    "ForImageAndTextRetrieval", "ForImageTextRetrieval", "ForRegression", "ForPrediction", "ForTimeSeriesClassification",
)  # fmt: skip
"""Ends of the names of classes that answer with something else than text of their own."""
_BARE = ("Model", "ModelWithProjection", "Backbone")
"""Ends of the names of encoders without a head."""
_GENERATING = ("LMHeadModel", "DoubleHeadsModel", "DecoderModel", "ChatGLMModel")
"""Ends that look like an encoder's."""
_PARTS = frozenset({"AutoConfig", "AutoTokenizer", "AutoProcessor", "AutoImageProcessor", "AutoFeatureExtractor"})
"""What code beside a model may make that is no model."""
_GENERATING_TENSORS = (
    "embed_tokens", "embed_in.", "embed_out.", "wte.", "wpe.", "lm_head.", "output_layer.weight", "tok_embeddings",
    "backbone.embeddings", "backbone.embedding.", "word_embeddings_layernorm", "self_attention.query_key_value",
    "rwkv.", ".mixer.in_proj",
)  # fmt: skip
"""Parts of the names that families of decoders give to their tensors; encoders have other names."""


def is_language_model(files: ArtifactFiles) -> bool:
    """Whether tensors and config are those of a language model, or of something that nobody knows."""
    if any(part in name for name in files.tensors for part in _GENERATING_TENSORS):
        return True  # whatever the config calls it: a loader of language models takes these tensors
    return not is_known_encoder(files)


def architectures_of(files: ArtifactFiles) -> list[str]:
    """The classes that config.json names, as transformers wrote them down."""
    listed = files.config.get("architectures")
    return [str(one) for one in listed] if isinstance(listed, list) else []


def is_encoder_class(name: str) -> bool:
    """Whether a class, by the name that transformers gives it, answers with something else than text of its own."""
    bare = name.endswith(_BARE) and not name.endswith(_GENERATING) and not name.startswith("Auto")
    return name.endswith(_HEADS) or bare


def is_known_encoder(files: ArtifactFiles) -> bool:
    """Whether config.json says in every way that this is an encoder, or a head that answers with no text of its own."""
    config, named, mapped = files.config, architectures_of(files), files.config.get("auto_map")
    made = [str(one) for one in mapped if one not in _PARTS] if isinstance(mapped, dict) else []
    return (
        str(config.get("model_type")) in _ENCODERS
        and not any(config.get(key) for key in ("is_decoder", "is_encoder_decoder", "add_cross_attention"))
        and bool(named)
        and all(is_encoder_class(one) for one in named + made)
    )
