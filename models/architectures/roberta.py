"""RoBERTa and XLM-R: BERT whose positions begin behind the id of padding, with a head of its own.

BGE's and E5's multilingual models and most multilingual rerankers are of this kind.
"""

from collections.abc import Mapping
from typing import Any

from models.architectures import bert
from models.config.encoder import EncoderConfig
from models.config.fields import Fields
from models.weights.encoder import encoder_weights
from models.weights.sources import WeightMap

ENCODERS = (
    "RobertaModel",
    "RobertaForMaskedLM",
    "RobertaForSequenceClassification",
    "XLMRobertaModel",
    "XLMRobertaForMaskedLM",
    "XLMRobertaForSequenceClassification",
)
NAMES = {
    **bert.names("roberta."),
    "head.first": "classifier.dense",
    "head.last": "classifier.out_proj",
}
IGNORED = ("*embeddings.position_ids", "*pooler.dense.*", "lm_head.*")


def config(raw: Mapping[str, Any]) -> EncoderConfig:
    fields = Fields(raw)
    # -1 is a table without the rows in front, as GGUF files have it
    return bert.encoder(fields, offset=fields.integer("pad_token_id", 1, low=-1) + 1)


def weights(config: EncoderConfig) -> WeightMap:
    return encoder_weights(config, NAMES, optional_prefix="roberta.", ignored=IGNORED)
