"""The benchmark's own tasks beside the demo's: a fact from one sentence, and common knowledge by multiple choice.

Items are drawn anew from a fixed seed, so that the repository need not carry them.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

SEED = 20261125
RECALL_ITEMS = 250
KNOWLEDGE_ITEMS = 200

_NAMES = [
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Grace",
    "Henry",
    "Ida",
    "Jack",
    "Kate",
    "Leo",
    "Maria",
    "Noah",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
    "Tina",
    "Victor",
]
_CITIES = [
    "Lisbon",
    "Kyoto",
    "Cairo",
    "Vienna",
    "Nairobi",
    "Montreal",
    "Athens",
    "Lima",
    "Prague",
    "Hanoi",
    "Dublin",
    "Oslo",
    "Seoul",
    "Havana",
    "Rome",
    "Quito",
    "Naples",
    "Sydney",
    "Berlin",
    "Madrid",
]
_THINGS = [
    "lamp",
    "chair",
    "kettle",
    "jacket",
    "guitar",
    "camera",
    "carpet",
    "bicycle",
    "clock",
    "mirror",
    "tent",
    "vase",
    "drum",
    "kite",
    "ladder",
    "basket",
]
_COLOURS = ["red", "blue", "green", "yellow", "black", "white", "brown", "purple", "pink", "grey"]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_CAPITALS = (
    "France Paris|Germany Berlin|Italy Rome|Spain Madrid|Portugal Lisbon|Austria Vienna|Poland Warsaw|Norway Oslo|"
    "Sweden Stockholm|Finland Helsinki|Denmark Copenhagen|Ireland Dublin|Greece Athens|Hungary Budapest|Belgium Brussels|"
    "Netherlands Amsterdam|Switzerland Bern|Romania Bucharest|Bulgaria Sofia|Croatia Zagreb|Serbia Belgrade|Ukraine Kyiv|"
    "Russia Moscow|Turkey Ankara|Iceland Reykjavik|Egypt Cairo|Kenya Nairobi|Nigeria Abuja|Ghana Accra|Ethiopia Addis Ababa|"
    "Morocco Rabat|Algeria Algiers|Tunisia Tunis|Senegal Dakar|Uganda Kampala|Zambia Lusaka|Zimbabwe Harare|Angola Luanda|"
    "Mozambique Maputo|Sudan Khartoum|Libya Tripoli|Mali Bamako|Rwanda Kigali|Namibia Windhoek|Japan Tokyo|China Beijing|"
    "India Delhi|Pakistan Islamabad|Nepal Kathmandu|Thailand Bangkok|Vietnam Hanoi|Cambodia Phnom Penh|Indonesia Jakarta|"
    "Malaysia Kuala Lumpur|Philippines Manila|Mongolia Ulaanbaatar|Iran Tehran|Iraq Baghdad|Syria Damascus|Lebanon Beirut|"
    "Jordan Amman|Qatar Doha|Oman Muscat|Afghanistan Kabul|Bangladesh Dhaka|Bhutan Thimphu|Brazil Brasilia|Argentina Buenos Aires|"
    "Chile Santiago|Peru Lima|Bolivia La Paz|Ecuador Quito|Colombia Bogota|Venezuela Caracas|Uruguay Montevideo|"
    "Paraguay Asuncion|Guyana Georgetown|Suriname Paramaribo"
)
_CONTINENTS = {"Europe": 25, "Africa": 19, "Asia": 22, "South America": 12}
"""How many countries of the list, in its order, lie on each."""
_OPPOSITES = (
    "hot cold|big small|fast slow|day night|up down|left right|young old|rich poor|strong weak|light dark|happy sad|"
    "open closed|early late|full empty|hard soft|high low|long short|near far|wet dry|clean dirty|loud quiet|"
    "good bad|win lose|buy sell|push pull|love hate|begin end|inside outside|above below|first last|true false|"
    "thick thin|wide narrow|deep shallow|sharp blunt|rough smooth|sweet bitter|brave cowardly|cheap expensive|"
    "easy difficult|front back|north south|east west|summer winter|life death|war peace|arrive depart|increase decrease|"
    "accept reject|remember forget|export import|borrow lend|attack defend|freeze melt|rise fall|asleep awake|"
    "ancient modern|victory defeat|success failure"
)
_CODE = '''"""One point where the answer holds the word that was asked for."""

from __future__ import annotations

import re
from typing import Any


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Per-item score, as lm-eval asks for it."""
    return {"has_word": float(doc["answer"].lower() in re.findall("[a-z]+", results[0].lower()))}
'''


def recall_items() -> list[dict[str, str]]:
    """An invented order, and a question about one of its details."""
    draw = random.Random(SEED)
    found: dict[str, dict[str, str]] = {}
    while len(found) < RECALL_ITEMS:
        name, city, thing, colour, day = (draw.choice(of) for of in (_NAMES, _CITIES, _THINGS, _COLOURS, _DAYS))
        question, answer = draw.choice(
            [
                (f"To which city did the {thing} go?", city),
                (f"What colour is the {thing}?", colour),
                (f"On which day was the {thing} sent?", day),
                (f"Who sent the {thing}?", name),
                (f"What did {name} send?", thing),
            ]
        )
        prompt = f"{name} sent a {colour} {thing} to {city} on {day}. {question} Answer with one word."
        found.setdefault(prompt, {"id": f"recall-{len(found):03d}", "prompt": prompt, "answer": answer})
    return list(found.values())


def knowledge_items() -> list[dict[str, object]]:
    """Capitals, continents and opposites; wrong choices are right answers to other questions of the kind."""
    draw = random.Random(SEED)
    capitals = dict(pair.split(" ", 1) for pair in _CAPITALS.split("|"))
    places = [continent for continent, count in _CONTINENTS.items() for _ in range(count)]
    opposites = [tuple(pair.split(" ")) for pair in _OPPOSITES.split("|")]
    opposites += [(right, left) for left, right in opposites]
    asked = [(f"The capital of {country} is", right, list(capitals.values())) for country, right in capitals.items()]
    asked += [(f"{one} is a country in", place, list(_CONTINENTS)) for one, place in zip(capitals, places, strict=True)]
    asked += [(f"The opposite of {one} is", right, [word for _, word in opposites]) for one, right in opposites]
    draw.shuffle(asked)
    items: list[dict[str, object]] = []
    for number, (query, right, pool) in enumerate(asked[:KNOWLEDGE_ITEMS]):
        wrong = draw.sample(sorted(set(pool) - {right}), 3)
        choices = draw.sample([right, *wrong], 4)
        items.append({"id": f"know-{number:03d}", "query": query, "choices": choices, "gold": choices.index(right)})
    return items


def write_tasks(folder: Path) -> Path:
    """Write both tasks as an lm-eval folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "score.py").write_text(_CODE, encoding="utf-8")
    for name, items, asks in (
        (
            "recall",
            recall_items(),
            'output_type: generate_until\ndoc_to_text: "{{prompt}}"\ndoc_to_target: "{{answer}}"\n'
            'generation_kwargs: {until: ["<|im_end|>"], max_gen_toks: 12, do_sample: false}\n'
            "process_results: !function score.process_results\n"
            "metric_list: [{metric: has_word, aggregation: mean, higher_is_better: true}]\n"
            "metadata: {version: 1.0, capability: edge-cases}\n",
        ),
        (
            "knowledge",
            knowledge_items(),
            'output_type: multiple_choice\ndoc_to_text: "{{query}}"\ndoc_to_choice: "{{choices}}"\n'
            "doc_to_target: gold\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
            "metadata: {version: 1.0, capability: knowledge}\n",
        ),
    ):
        data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{data}{asks}", encoding="utf-8")
        lines = (json.dumps(item) + "\n" for item in items)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder
