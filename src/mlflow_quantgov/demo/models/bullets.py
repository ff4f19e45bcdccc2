"""Questions with a constraint that can be checked: the answer must be exactly three bullet points.

Makes the items of the shipped task again:

    python -m mlflow_quantgov.demo.models.bullets
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from mlflow_quantgov.demo.models import SMOLLM2_TASKS

COUNT = 300
SEED = 20261123
FILE = SMOLLM2_TASKS / "items.jsonl"
CONSTRAINT = 'Your answer must contain exactly 3 short bullet points, each starting with "* ".'

_QUESTIONS: dict[str, str] = {
    "What is {} used for?": (
        "a compass|baking soda|copper wire|a microscope|olive oil|a thermometer|chalk|a pulley|beeswax|"
        "a barometer|charcoal|a telescope|salt|a trowel|bamboo|a sundial|leather|a funnel|cotton|a lathe|"
        "vinegar|an anchor|cork|a stethoscope|wool"
    ),
    "How does {} work?": (
        "a bicycle|a refrigerator|a lighthouse|a windmill|a zip fastener|a library loan|a steam engine|"
        "a pencil sharpener|a compost heap|a sewing machine|a battery|a canal lock|a rain gauge|a kite|"
        "a toaster|a parachute|a submarine|a hearing aid|a greenhouse|a vacuum cleaner|a camera|"
        "a thermos flask|a solar panel|a piano|an elevator"
    ),
    "Why do people {}?": (
        "keep diaries|plant trees|learn languages|go camping|collect stamps|drink tea|wear hats|visit museums|"
        "play chess|ride horses|bake bread|sing in choirs|keep bees|write letters|run marathons|study history|"
        "watch birds|grow vegetables|travel by train|join clubs|read novels|paint walls|go fishing|"
        "learn to swim|save money"
    ),
    "What should I know about {}?": (
        "the moon|volcanoes|honey|the Amazon river|glaciers|coffee|elephants|coral reefs|the violin|silk|"
        "tornadoes|wolves|the desert|paper|bridges|tides|penguins|the alphabet|mushrooms|castles|earthquakes|"
        "cheese|whales|clocks|rainbows"
    ),
    "What are good reasons to visit {}?": (
        "Lisbon|Kyoto|Cairo|Vienna|Nairobi|Montreal|Athens|Lima|Prague|Hanoi|Dublin|Oslo|Marrakesh|Seoul|"
        "Havana|Rome|Istanbul|Quito|Edinburgh|Bangkok|Helsinki|Naples|Cape Town|Mumbai|Sydney"
    ),
    "How can I get better at {}?": (
        "cooking|public speaking|swimming|drawing|chess|spelling|gardening|photography|listening|mathematics|"
        "running|dancing|writing letters|sleeping well|planning my week|cycling|singing|knitting|"
        "remembering names|saving money|studying|playing the guitar|reading maps|teaching|woodworking"
    ),
    "What does {} do all day?": (
        "a nurse|a farmer|a judge|a plumber|a librarian|a baker|a pilot|a carpenter|a teacher|a firefighter|"
        "a tailor|a journalist|a geologist|a chef|a postman|a dentist|a shepherd|an architect|an astronomer|"
        "a translator|a mechanic|a gardener|a lifeguard|a surveyor|a pharmacist"
    ),
    "What happens during {}?": (
        "a solar eclipse|a thunderstorm|a wedding|an election|a harvest|a flood|a football match|"
        "photosynthesis|a concert|a fire drill|digestion|an orchestra rehearsal|a drought|a job interview|"
        "a chess game|a snowstorm|evaporation|a trial|a school day|a marathon|spring|a heat wave|"
        "a theatre play|fermentation|an auction"
    ),
    "How do I take care of {}?": (
        "a cactus|a puppy|a bicycle|leather shoes|a goldfish|a lawn|a wooden table|a cast iron pan|a kitten|"
        "roses|a wool sweater|a garden pond|houseplants|a horse|a violin|tomato plants|a tent|an old book|"
        "a parrot|a kitchen knife|a rabbit|a car|a fruit tree|a hamster|a wristwatch"
    ),
    "What makes {} important?": (
        "sleep|clean water|friendship|education|bees|exercise|forests|music|sunlight|honesty|vaccines|wetlands|"
        "teamwork|laws|recycling|breakfast|public libraries|rivers|patience|soil|good posture|trade|play|"
        "oceans|practice"
    ),
    "What is the difference between {}?": (
        "a lake and a sea|butter and margarine|a frog and a toad|a novel and a poem|copper and bronze|"
        "a comet and a planet|a guitar and a violin|a crocodile and an alligator|jam and honey|"
        "a village and a city|rain and hail|a nut and a seed|a mayor and a governor|tea and coffee|"
        "a train and a tram|a hill and a mountain|wheat and rice|a moth and a butterfly|a king and a president|"
        "ice and snow|a fork and a spoon|a painting and a photograph|wool and cotton|a ship and a boat|"
        "fog and smoke"
    ),
    "What do I need for {}?": (
        "a picnic|a camping trip|painting a room|a birthday party|a long hike|baking a cake|a day at the beach|"
        "planting a tree|a science project|moving house|a first aid kit|a road trip|building a bookshelf|"
        "a job interview|learning to knit|a winter walk|making soup|a school bag|fishing|starting a garden|"
        "a train journey|making candles|a bicycle tour|washing a dog|writing an essay"
    ),
}


def items(count: int = COUNT, seed: int = SEED) -> list[dict[str, str]]:
    """Distinct items in a fixed random order: `id`, `group` (the kind of question), `prompt` (the user's turn)."""
    drawn = [
        (group, question.format(topic))
        for group, (question, topics) in enumerate(_QUESTIONS.items())
        for topic in topics.split("|")
    ]
    random.Random(seed).shuffle(drawn)  # noqa: S311 - a reproducible order, no secret
    return [
        {"id": f"bullets-{i:03d}", "group": f"kind-{group:02d}", "prompt": f"{question} {CONSTRAINT}"}
        for i, (group, question) in enumerate(drawn[:count])
    ]


def write(file: Path = FILE) -> Path:
    """Write the items as JSONL."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(item) + "\n" for item in items()), encoding="utf-8")
    return file


if __name__ == "__main__":
    print(write())
