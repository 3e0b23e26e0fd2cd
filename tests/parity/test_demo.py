"""transformers loads the bundled model's folder and writes the same texts."""

import pytest

from engine import LLM, SamplingParams
from models.demo import DEMO_FOLDER

pytestmark = pytest.mark.parity

TOKENS = 40
PROMPTS = ["Once upon a time", "The dog", "One day Lily", "In the morning"]
CHATS = [
    [{"role": "user", "content": "Hello!"}],
    [
        {"role": "system", "content": "Your name is Nora."},
        {"role": "user", "content": "What is your name?"},
    ],
]


@pytest.fixture(scope="module")
def reference():
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO_FOLDER)
    model = transformers.AutoModelForCausalLM.from_pretrained(DEMO_FOLDER, dtype=torch.float32)

    def generate(prompt, chat):
        text = prompt
        if chat:
            text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=not chat).input_ids
        out = model.generate(ids, max_new_tokens=TOKENS, do_sample=False)[0, ids.shape[1] :]
        return tokenizer.decode(out, skip_special_tokens=True)

    return generate


def test_same_greedy_text(reference):
    greedy = SamplingParams(temperature=0, max_tokens=TOKENS)
    with LLM("demo", max_num_seqs=4, max_num_batched_tokens=64) as llm:
        texts = [o.outputs[0].text for o in llm.generate(PROMPTS, greedy)]
        answers = [o.outputs[0].text for o in llm.chat(CHATS, greedy)]
    assert texts == [reference(prompt, chat=False) for prompt in PROMPTS]
    assert answers == [reference(chat, chat=True) for chat in CHATS]
