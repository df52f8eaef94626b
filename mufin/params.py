"""params.yaml -> frozen dataclasses that refuse what makes no sense; the only reader of params.yaml."""

from __future__ import annotations

import difflib
import json
import types
import typing
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Literal

from mufin.errors import MufinError


class ParamsError(MufinError):
    """A setting is unknown, missing or out of range: which, its value, the remedy."""


def _check(ok: bool, name: str, value: object, rule: str) -> None:
    if not ok:
        raise ParamsError(f"{name} is {value!r}; {rule}")


def _in(obj: object, section: str, low: float, high: float, *names: str) -> None:
    for name in names:
        value = getattr(obj, name)
        _check(
            low <= value <= high, f"{section}.{name}", value, f"it must lie in [{low:g}, {high:g}]"
        )


def _at_least(obj: object, section: str, low: float, *names: str) -> None:
    for name in names:
        value = getattr(obj, name)
        _check(value >= low, f"{section}.{name}", value, f"it must be at least {low:g}")


def _positive(obj: object, section: str, *names: str) -> None:
    for name in names:
        value = getattr(obj, name)
        _check(value > 0, f"{section}.{name}", value, "it must be greater than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    id: str
    title: str
    images: str
    related: str
    category: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    products: int
    seed: int

    def __post_init__(self):
        _at_least(self, "download.sample", 60, "products")
        _at_least(self, "download.sample", 0, "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """Where products and pictures come from."""

    source: Literal["sample", "mm-amazontitles", "amazon-2018", "amazon-2014", "catalog"]
    location: str | list[str] | None
    columns: Columns
    sample: Sample
    max_images: int
    max_failed: float
    timeout: float
    max_bytes: int
    retries: int
    per_host: int
    max_redirects: int
    private_addresses: bool

    def __post_init__(self):
        _at_least(self, "download", 0, "max_images", "retries", "max_redirects")
        _at_least(self, "download", 1, "max_bytes", "per_host")
        _positive(self, "download", "timeout")
        _in(self, "download", 0, 1, "max_failed")
        needs = self.source not in ("sample", "mm-amazontitles")
        _check(
            not (needs and not self.location),
            "download.location",
            self.location,
            f"source {self.source} needs a path, a glob or a URL there",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Curate:
    """Cleaning and splits (METHOD: cold by default)."""

    split: Literal["cold", "warm"]
    seed: int
    test: float
    valid: float
    max_products: int | None

    def __post_init__(self):
        _at_least(self, "curate", 0, "seed")
        for name in ("test", "valid"):
            _check(
                0 <= getattr(self, name) < 1,
                f"curate.{name}",
                getattr(self, name),
                "it must lie in [0, 1)",
            )
        _check(
            self.max_products is None or self.max_products >= 2,
            "curate.max_products",
            self.max_products,
            "it must be null or at least 2",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEncoderParams:
    """E_V (Sec. 3)."""

    name: str
    weights: str
    options: dict
    size: int
    trainable_blocks: int | Literal["all"]
    kind: Literal["timm", "clip"] = "timm"

    def __post_init__(self):
        _at_least(self, "encoder.image", 8, "size")
        _check(
            self.trainable_blocks == "all" or self.trainable_blocks >= 0,
            "encoder.image.trainable_blocks",
            self.trainable_blocks,
            "it must be `all` or at least 0",
        )
        _check(
            self.kind == "timm" or self.trainable_blocks in (0, "all"),
            "encoder.image.trainable_blocks",
            self.trainable_blocks,
            f"with encoder.image.kind: {self.kind} it must be 0 or all",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoderParams:
    """E_T (Sec. 3)."""

    name: str
    weights: str
    options: dict
    vocabulary: int
    max_tokens: int
    trainable_layers: int | Literal["all"]
    kind: Literal["auto", "clip", "visualbert"] = "auto"

    def __post_init__(self):
        _at_least(self, "encoder.text", 64, "vocabulary")
        _at_least(self, "encoder.text", 3, "max_tokens")
        _check(
            self.trainable_layers == "all" or self.trainable_layers >= 0,
            "encoder.text.trainable_layers",
            self.trainable_layers,
            "it must be `all` or at least 0",
        )
        _check(
            self.kind == "auto" or self.trainable_layers in (0, "all"),
            "encoder.text.trainable_layers",
            self.trainable_layers,
            f"with encoder.text.kind: {self.kind} it must be 0 or all",
        )
        _check(
            self.kind != "clip" or self.weights == "random" or self.max_tokens <= 77,
            "encoder.text.max_tokens",
            self.max_tokens,
            "CLIP reads 77 tokens at most",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexical:
    ngrams: int
    min_count: int
    max_terms: int

    def __post_init__(self):
        _at_least(self, "encoder.lexical", 1, "ngrams", "min_count", "max_terms")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderParams:
    """Descriptor encoders (Sec. 3, App. D)."""

    modalities: list[Literal["text", "image", "lexical"]]
    dim: int
    projection: Literal["maxpool", "linear"]
    standardise: bool
    input_dropout: float
    image_dropout: float
    modality_dropout: float
    image: ImageEncoderParams
    text: TextEncoderParams
    lexical: Lexical

    def __post_init__(self):
        _check(
            bool(self.modalities) and len(set(self.modalities)) == len(self.modalities),
            "encoder.modalities",
            self.modalities,
            "name at least one of text, image, lexical, each once",
        )
        _at_least(self, "encoder", 1, "dim")
        for name in ("input_dropout", "image_dropout", "modality_dropout"):
            _check(
                0 <= getattr(self, name) < 1,
                f"encoder.{name}",
                getattr(self, name),
                "it must lie in [0, 1)",
            )
        if self.text.kind == "visualbert":
            _check(
                set(self.modalities) == {"text", "image"},
                "encoder.modalities",
                self.modalities,
                "with encoder.text.kind: visualbert, which fuses titles and pictures, it must be [text, image]",
            )
            _check(
                self.image.trainable_blocks == 0,
                "encoder.image.trainable_blocks",
                self.image.trainable_blocks,
                "with encoder.text.kind: visualbert it must be 0, for VisualBERT reads features computed once",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Attention blocks A_S and A_C (Fig. 2d)."""

    a_s: Literal["attention", "feedforward", "none"]
    heads: int
    dropout: float
    gates: bool
    image_gate: float

    def __post_init__(self):
        _at_least(self, "attention", 1, "heads")
        _check(0 <= self.dropout < 1, "attention.dropout", self.dropout, "it must lie in [0, 1)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrain:
    """Module I (MUFIN Sec. 3.1)."""

    loss: Literal["triplet", "softmax"]
    gamma: float
    temperature: float
    batching: Literal["labels", "datapoints", "clusters"]
    batch_size: int
    positives: int
    negatives: int
    positive_threshold: float
    hard_positives: bool
    hard_negatives: bool
    random_epochs: int
    refresh_epochs: int
    epochs: int
    lr: float
    new_lr_factor: float
    lexical_lr_factor: float
    gates_lr_factor: float
    weight_decay: float
    warmup_iterations: int

    def __post_init__(self):
        _check(
            0 < self.gamma <= 2,
            "pretrain.gamma",
            self.gamma,
            "a difference of two cosines lies in (0, 2]",
        )
        _positive(
            self,
            "pretrain",
            "temperature",
            "lr",
            "new_lr_factor",
            "lexical_lr_factor",
            "gates_lr_factor",
        )
        _at_least(self, "pretrain", 2, "batch_size")
        _at_least(self, "pretrain", 1, "positives", "negatives", "refresh_epochs", "epochs")
        _at_least(self, "pretrain", 0, "random_epochs", "weight_decay", "warmup_iterations")
        _in(self, "pretrain", -1, 1, "positive_threshold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hnsw:
    m: int
    ef_construction: int
    ef: int


def _check_hnsw(section: str, hnsw: Hnsw) -> None:
    _at_least(hnsw, f"{section}.hnsw", 2, "m")
    _at_least(hnsw, f"{section}.hnsw", 1, "ef_construction", "ef")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieve:
    """Module II (MUFIN Sec. 3.1)."""

    vectors: Literal["bag", "vec"]
    shortlist: int
    search: Literal["exact", "hnsw", "auto"]
    hnsw: Hnsw

    def __post_init__(self):
        _check_hnsw("retrieve", self.hnsw)
        _at_least(self, "retrieve", 1, "shortlist")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Module III (MUFIN Sec. 3.1)."""

    a_c: Literal["attention", "concat", "none"]
    free_vectors: Literal["xavier", "centroid", "ridge"]
    ridge: float
    alpha: float
    normalise_classifier: bool

    def __post_init__(self):
        _positive(self, "transfer", "ridge")
        _check(
            0 < self.alpha <= 1,
            "transfer.alpha",
            self.alpha,
            "a weight of the label embedding lies in (0, 1]",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetune:
    """Module IV (MUFIN Sec. 3.1)."""

    loss: Literal["hinge", "softmax"]
    candidates: Literal["shortlist", "all"]
    gamma: float
    temperature: float
    positives: int
    negatives: int
    random_negatives: int
    batch_size: int
    epochs: int
    lr: float
    attention_lr_factor: float
    free_lr_factor: float
    lexical_lr_factor: float
    gates_lr_factor: float
    weight_decay: float
    warmup_iterations: int
    train_encoders: bool
    select: Literal["last", "valid"]
    free_update: Literal["rows", "dense"] = "rows"

    def __post_init__(self):
        _check(
            -1 <= self.gamma <= 1, "finetune.gamma", self.gamma, "a cosine margin lies in [-1, 1]"
        )
        _positive(
            self,
            "finetune",
            "temperature",
            "lr",
            "attention_lr_factor",
            "free_lr_factor",
            "lexical_lr_factor",
            "gates_lr_factor",
        )
        _at_least(self, "finetune", 1, "positives", "batch_size", "epochs")
        _at_least(
            self,
            "finetune",
            0,
            "negatives",
            "random_negatives",
            "weight_decay",
            "warmup_iterations",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    search: Literal["exact", "hnsw", "auto"]
    hnsw: Hnsw
    title_ridge: float

    def __post_init__(self):
        _check_hnsw("index", self.hnsw)
        _at_least(self, "index", 0, "title_ridge")


@dataclass(frozen=True, slots=True, kw_only=True)
class Propensity:
    a: float
    b: float

    def __post_init__(self):
        _positive(self, "evaluate.propensity", "a", "b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    beta: float
    mix: Literal["fixed", "chosen"]
    betas: list[float]
    candidates: Literal["shortlist", "all"]
    shortlist: int
    frequency_weights: list[float]
    ridge_weights: list[float]
    propensity: Propensity
    tail: int

    def __post_init__(self):
        _in(self, "evaluate", 0, 1, "beta")
        for beta in self.betas:
            _check(0 <= beta <= 1, "evaluate.betas", beta, "each must lie in [0, 1]")
        for name in ("betas", "frequency_weights", "ridge_weights"):
            _check(bool(getattr(self, name)), f"evaluate.{name}", [], "it needs at least one value")
        _at_least(self, "evaluate", 100, "shortlist")  # as wide as predictions are
        _at_least(self, "evaluate", 1, "tail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    seed: int
    members: int
    download: Download
    curate: Curate
    encoder: EncoderParams
    attention: Attention
    pretrain: Pretrain
    retrieve: Retrieve
    transfer: Transfer
    finetune: Finetune
    index: Index
    evaluate: Evaluate

    def __post_init__(self):
        _check(self.seed >= 0, "seed", self.seed, "it must be at least 0")
        _check(self.members >= 1, "members", self.members, "it must be at least 1")
        _check(
            self.encoder.dim % self.attention.heads == 0,
            "attention.heads",
            self.attention.heads,
            f"it must divide encoder.dim ({self.encoder.dim})",
        )
        _check(
            self.finetune.candidates == "all"
            or self.finetune.negatives + self.finetune.random_negatives > 0,
            "finetune.negatives",
            self.finetune.negatives,
            "with candidates: shortlist a step needs negatives",
        )
        _check(
            self.finetune.select == "last" or self.curate.valid > 0,
            "finetune.select",
            self.finetune.select,
            "with curate.valid: 0 there is nothing to select by",
        )
        _check(
            self.index.title_ridge > 0 or self.evaluate.ridge_weights == [0.0],
            "evaluate.ridge_weights",
            self.evaluate.ridge_weights,
            "without index.title_ridge it must be [0.0]",
        )


def load_params(path: Path = Path("params.yaml")) -> Params:
    """All settings, checked; raises ParamsError in one sentence. YAML 1.2, so `1e-05` is a number."""
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing; `mufin use sample` writes one") from None
    return _build(Params, _content(text, path), "")


def _content(text: str, path: Path) -> object:
    """What the file says. YAML contains JSON, and a file of JSON needs no YAML library: benchmarks.gpu writes one."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # not JSON, or nested deeper than Python follows
        pass
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        where = getattr(error, "problem_mark", None)
        raise ParamsError(
            f"{path}{f' line {where.line + 1}' if where else ''} is not YAML: "
            f"{getattr(error, 'problem', error)}"
        ) from None


def _build(kind: type, content: object, prefix: str):
    """A dataclass from a mapping of the same names; unknown and missing names are errors."""
    if not isinstance(content, dict):
        raise ParamsError(
            f"{prefix.rstrip('.') or 'params.yaml'} is {content!r}; it must be a section of settings"
        )
    hints = typing.get_type_hints(kind)
    for name in content:
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, 1, 0.5)
            hint = (
                f"did you mean {prefix}{near[0]}?"
                if near
                else f"the settings here are {', '.join(hints)}"
            )
            raise ParamsError(f"{prefix}{name} is not a parameter; {hint}")
    values = {}
    for field in fields(kind):
        if field.name not in content and field.default is MISSING:
            raise ParamsError(
                f"{prefix}{field.name} is missing; params/ has complete files to copy the line from"
            )
        values[field.name] = _convert(hints[field.name], content[field.name], prefix + field.name)
    return kind(**values)


def _convert(kind, value, name: str):
    """`value` as the annotated type; int is accepted for float, nothing else is bent."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        return _build(kind, value, name + ".")
    if origin is Literal:
        if value in args and not isinstance(value, bool):
            return value
        near = difflib.get_close_matches(str(value), args, 1, 0.4)
        raise ParamsError(
            f"{name} is {value!r}; it must be one of {', '.join(map(str, args))}"
            + (f" (did you mean {near[0]}?)" if near else "")
        )
    if origin in (typing.Union, types.UnionType):
        return _first_that_fits(args, value, name)
    if origin is list:
        if not isinstance(value, list):
            raise ParamsError(f"{name} is {value!r}; it must be a list")
        return [_convert(args[0], v, name) for v in value]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, float) and value != value:
        raise ParamsError(f"{name} is {value!r}; it must be a number")
    wrong_bool = isinstance(value, bool) and kind is not bool
    if not isinstance(value, kind) or wrong_bool:
        raise ParamsError(f"{name} is {value!r}; it must be {_noun(kind)}")
    return value


def _first_that_fits(kinds, value, name: str):
    for kind in kinds:
        try:
            return _convert(kind, value, name)
        except ParamsError:
            continue
    nouns = [
        str(typing.get_args(k)[0]) if typing.get_origin(k) is Literal else _noun(k) for k in kinds
    ]
    raise ParamsError(f"{name} is {value!r}; it must be {' or '.join(nouns)}")


def _noun(kind) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        dict: "a section",
        type(None): "null",
    }
    return names.get(kind, "a list")
