"""Settings: params.yaml as frozen dataclasses, whose fields say what they mean.

`mufin.profiles` writes params.yaml, and its comments, from these meanings.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Literal

from mufin.catalog_params import Curate, Download
from mufin.errors import shown
from mufin.param_checks import check, check_at_least, check_below_one, check_in, check_positive
from mufin.settings_file import ParamsError, build, read_settings, written_by

Search = Annotated[
    Literal["exact", "hnsw", "auto"],
    "exact: compare with every row | hnsw: approximate, by a graph, on a CPU | auto: exact on a "
    "GPU and up to 200,000 rows, else hnsw",
]


Schedule = Annotated[
    Literal["one_cycle", "linear"],
    "of the rate, from the peak to the end "
    "| one_cycle (paper): a cosine, as torch's OneCycleLR "
    "| linear (released code): a line",
]
Warmup = Annotated[
    int | Literal["epoch"],
    "batches up to the peak rate, >= 0, at most a tenth of all; paper 1000 "
    "| epoch (released code): those of one epoch",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEncoderParams:
    """E_V (Sec. 3, App. D)."""

    kind: Annotated[
        Literal["timm", "clip", "vectors"],
        "timm: a model of the timm library "
        "| clip: the image part of a CLIP model (App. C.1) "
        "| vectors: those of download.image_vectors, as they are; the other settings of the "
        "section are not used",
    ]
    name: Annotated[
        str, "timm: model name, local-dir:<folder> or folder; clip: Hugging Face name or folder"
    ]
    weights: Annotated[str, "pretrained | random | path of a checkpoint file"]
    options: Annotated[
        dict,
        "more arguments of timm.create_model, or of the CLIP configuration; with timm also mean "
        "and std of the pixels, where those of the weights are not found",
    ]
    size: Annotated[
        int,
        "pixels per side, >= 8; images are fitted into a white square; goes with the patch of a "
        "ViT: 224 with patch 32 for the paper (49 patches), released code 128 with patch 16 (64)",
    ]
    trainable_blocks: Annotated[
        int | Literal["all"],
        "last blocks that train (and final norm), a number or all; paper 1 "
        "| 0: frozen, its vectors are computed once",
    ]
    activations: Annotated[
        Literal["float16", "int8"],
        "how the outputs of the frozen blocks are stored where others train "
        "| int8: half the bytes; refused if a descriptor's cosine with that by float16 is below "
        "0.999",
    ]
    self_supervised_epochs: Annotated[
        int,
        "passes over the pictures of train products and labels in which all of E_V (kind timm) "
        "learns to tell products apart, before everything else; >= 0; paper 0",
    ]
    self_supervised_lr: Annotated[float, "peak learning rate (AdamW) of these passes, > 0"]

    def __post_init__(self):
        check_at_least(self, "encoder.image", 8, "size")
        check_at_least(self, "encoder.image", 0, "self_supervised_epochs")
        check_positive(self, "encoder.image", "self_supervised_lr")
        check(
            self.kind != "clip" or not self.self_supervised_epochs,
            "encoder.image.self_supervised_epochs",
            self.self_supervised_epochs,
            "with encoder.image.kind: clip it must be 0",
        )
        check(
            self.trainable_blocks == "all" or self.trainable_blocks >= 0,
            "encoder.image.trainable_blocks",
            self.trainable_blocks,
            "it must be `all` or at least 0",
        )
        check(
            self.kind != "clip" or self.trainable_blocks in (0, "all"),
            "encoder.image.trainable_blocks",
            self.trainable_blocks,
            f"with encoder.image.kind: {self.kind} it must be 0 or all",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoderParams:
    """E_T (Sec. 3, App. D)."""

    kind: Annotated[
        Literal["auto", "clip", "visualbert"],
        "auto: any text model "
        "| clip: the text part of a CLIP model "
        "| visualbert: title and images in one vector (App. C.1; needs attention.a_s: none)",
    ]
    name: Annotated[
        str, "Hugging Face name or folder; with random weights a model type such as bert"
    ]
    weights: Annotated[str, "pretrained | random | path of a checkpoint file"]
    options: Annotated[dict, "more arguments of the model's Hugging Face configuration"]
    vocabulary: Annotated[int, "WordPiece entries learnt from titles, >= 64 (only random weights)"]
    max_tokens: Annotated[int, "tokens per title, >= 3; longer titles are cut; paper 32"]
    trainable_layers: Annotated[
        int | Literal["all"],
        "last layers that train, a number or all; paper all "
        "| 0: frozen, its vectors are computed once",
    ]

    def __post_init__(self):
        check_at_least(self, "encoder.text", 64, "vocabulary")
        check_at_least(self, "encoder.text", 3, "max_tokens")
        check(
            self.trainable_layers == "all" or self.trainable_layers >= 0,
            "encoder.text.trainable_layers",
            self.trainable_layers,
            "it must be `all` or at least 0",
        )
        check(
            self.kind == "auto" or self.trainable_layers in (0, "all"),
            "encoder.text.trainable_layers",
            self.trainable_layers,
            f"with encoder.text.kind: {self.kind} it must be 0 or all",
        )
        check(
            self.kind != "clip" or self.weights == "random" or self.max_tokens <= 77,
            "encoder.text.max_tokens",
            self.max_tokens,
            "CLIP reads 77 tokens at most",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexical:
    """Which words of titles get a learnt vector."""

    ngrams: Annotated[int, "a term is a sequence of 1 to so many words, >= 1"]
    min_count: Annotated[int, "titles of train products and labels that a term must be in, >= 1"]
    max_terms: Annotated[int, "terms kept, the most frequent ones, >= 1"]

    def __post_init__(self):
        check_at_least(self, "encoder.lexical", 1, "ngrams", "min_count", "max_terms")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderParams:
    """The descriptors of a product (Sec. 3, App. D)."""

    modalities: Annotated[
        list[Literal["text", "image", "lexical"]],
        "descriptors of a product, one or more "
        "| text: its title, by E_T "
        "| image: its images, by E_V "
        "| lexical: words of its title, each with a learnt vector; not in the paper",
    ]
    dim: Annotated[int, "D, numbers per descriptor after the projection, >= 1; paper 192"]
    projection: Annotated[
        Literal["maxpool", "linear", "two_layers"],
        "from the encoder's width to D "
        "| maxpool (paper): maxima of groups of features "
        "| linear: a learnt matrix "
        "| two_layers (released code): two learnt matrices with spectral norm",
    ]
    standardise: Annotated[bool, "true: centre and scale what frozen encoders give; paper false"]
    input_dropout: Annotated[float, "dropout on what E_T gives, [0, 1); paper 0"]
    image_dropout: Annotated[float, "dropout on what E_V gives, [0, 1); paper 0"]
    lexical_dropout: Annotated[float, "dropout on the descriptors of title words, [0, 1)"]
    descriptor_norm: Annotated[
        bool,
        "true: a LayerNorm per modality on the descriptors of a bag, before A_S, which else mixes",
        "descriptors of different length; paper false",
    ]
    modality_dropout: Annotated[
        float,
        "chance in training that a product with several modalities loses one, [0, 1); paper 0",
    ]
    fusion: Annotated[
        Literal["late", "early", "both"],
        "where title and images meet, if both are in use "
        "| late (paper): in A_S, as descriptors of their own "
        "| early: E_T reads the vectors of images as tokens after the title; one descriptor "
        "| both: early, and the images stay descriptors of their own",
    ]
    fused_images: Annotated[
        int,
        "early, both: images of a product that E_T reads, the first ones, >= 1 | late: not used",
    ]
    image: Annotated[ImageEncoderParams, "E_V, the image encoder"]
    text: Annotated[TextEncoderParams, "E_T, the text encoder"]
    lexical: Annotated[Lexical, "words with a learnt vector (modality lexical)"]

    def __post_init__(self):
        check(
            bool(self.modalities) and len(set(self.modalities)) == len(self.modalities),
            "encoder.modalities",
            self.modalities,
            "name at least one of text, image, lexical, each once",
        )
        check_at_least(self, "encoder", 1, "dim", "fused_images")
        check_below_one(
            self, "encoder", "input_dropout", "image_dropout", "lexical_dropout", "modality_dropout"
        )
        if self.text.kind == "visualbert":
            check(
                set(self.modalities) == {"text", "image"},
                "encoder.modalities",
                self.modalities,
                "with encoder.text.kind: visualbert, which reads titles and images together, it "
                "must be [text, image]",
            )
            check(
                self.image.kind == "vectors" or self.image.trainable_blocks == 0,
                "encoder.image.trainable_blocks",
                self.image.trainable_blocks,
                "with encoder.text.kind: visualbert, which reads image vectors computed once, it "
                "must be 0",
            )
        if self.fuses_early:
            self._check_fusion()

    @property
    def fuses_early(self) -> bool:
        """Whether E_T reads the images. Without titles or without images nothing is fused."""
        return self.fusion != "late" and {"text", "image"} <= set(self.modalities)

    def _check_fusion(self) -> None:
        fusion = f"with encoder.fusion: {self.fusion}"
        late = "or set encoder.fusion to late"
        check(
            self.text.kind == "auto",
            "encoder.text.kind",
            self.text.kind,
            f"{fusion} it must be auto, {late}",
        )
        check(
            self.text.trainable_layers != 0,
            "encoder.text.trainable_layers",
            self.text.trainable_layers,
            f"{fusion}, in which E_T must learn to read images, it must be all or at least 1, "
            f"{late}",
        )
        check(
            self.image.kind == "vectors" or self.image.trainable_blocks == 0,
            "encoder.image.trainable_blocks",
            self.image.trainable_blocks,
            f"{fusion}, which reads image vectors computed once, it must be 0, {late}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Attention blocks A_S and A_C (Fig. 2d)."""

    a_s: Annotated[
        Literal["attention", "feedforward", "none"],
        "attention: A_S as in the paper "
        "| feedforward: a layer for each descriptor alone (MUFIN-no A_S, Table 4) "
        "| none: descriptors unchanged",
    ]
    heads: Annotated[int, "attention heads of A_S and A_C, >= 1; must divide encoder.dim"]
    dropout: Annotated[float, "dropout in A_S and A_C, [0, 1)"]
    gates: Annotated[
        bool,
        "true: each modality has a learnt weight in the sum of a bag | false (paper): plain sum",
    ]
    pool: Annotated[
        Literal["sum", "means"],
        "x of a bag "
        "| sum (paper): of all descriptors, so that many images outweigh a title "
        "| means: of the mean of each modality",
    ]
    image_gate: Annotated[
        float,
        "logarithm of the weight of images at the start, where gates is true; 0: weight 1, as "
        "titles; -2: weight 0.14",
    ]

    def __post_init__(self):
        check_at_least(self, "attention", 1, "heads")
        check_below_one(self, "attention", "dropout")


def _check_warmup(section: str, batches: int | str) -> None:
    check(
        batches == "epoch" or int(batches) >= 0,
        f"{section}.warmup_iterations",
        batches,
        "it must be `epoch` or at least 0",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrain:
    """Module I (MUFIN Sec. 3.1)."""

    loss: Annotated[
        Literal["triplet", "soft_triplet", "softmax"],
        "triplet (paper): a positive must be nearer than a negative by gamma "
        "| soft_triplet: nearer than a soft maximum over all negatives of the batch; with few "
        "labels per batch, where the hinge on the hardest gives all products the same vector "
        "| softmax: over all pairs of the batch, in both directions",
    ]
    gamma: Annotated[
        float,
        "triplet: margin, a difference of two cosines, (0, 2]; paper 0.2, released code 0.3 "
        "| others: not used",
    ]
    temperature: Annotated[
        float,
        "softmax, soft_triplet: divides the cosines, > 0 "
        "| triplet: divides those in negative_weights",
    ]
    negative_weights: Annotated[
        Literal["equal", "softmax"],
        "triplet: weights of the negatives of a label "
        "| equal (paper): all 1 "
        "| softmax (released code): by their cosines / temperature (0.1), so that the hardest "
        "counts most",
    ]
    batching: Annotated[
        Literal["labels", "datapoints", "clusters", "datapoint_clusters"],
        "labels (paper): batches of random labels "
        "| datapoints: of random datapoints "
        "| clusters: of similar labels, whose negatives are harder (as in NGAME) "
        "| datapoint_clusters (released code): of similar datapoints",
    ]
    batch_size: Annotated[int, "B, labels per batch (or datapoints: batching), >= 2; paper 1024"]
    positives: Annotated[int, "|P_l|, datapoints drawn per label of the batch, >= 1; paper 2"]
    negatives: Annotated[
        int,
        "triplet: |N_l|, negatives per label, positives of the batch's other labels, >= 1; paper "
        "3, released code 10 "
        "| soft_triplet: where hard_negatives is false "
        "| softmax: not used",
    ]
    positive_threshold: Annotated[
        float, "a positive is hard if its cosine with the label is at most this, [-1, 1]; paper 0.9"
    ]
    hard_positives: Annotated[
        bool,
        "true (paper): positives are drawn from the hard ones "
        "| false: from all (MUFIN-no +ve, Table 4)",
    ]
    hard_negatives: Annotated[
        bool,
        "triplet: true (paper): negatives are the most similar ones, false: random ones (with "
        "random positives MUFIN-no +ve, -ve) "
        "| soft_triplet: true: all that the batch has, false: random ones "
        "| softmax: not used",
    ]
    random_epochs: Annotated[int, "first epochs, whose positives (and clusters) are random; >= 0"]
    refresh_epochs: Annotated[int, "epochs between two computations of what is hard, >= 1"]
    epochs: Annotated[int, "passes over all labels, >= 1; paper 200"]
    lr: Annotated[float, "peak learning rate (AdamW) of the encoders, > 0; paper 2e-4"]
    new_lr_factor: Annotated[float, "times lr: rate of the projection and A_S, > 0; paper 1"]
    lexical_lr_factor: Annotated[float, "times lr: rate of the lexical vectors, > 0"]
    lexical_weight_decay: Annotated[
        float, "of the lexical vectors in a step; words that tell little become short; >= 0"
    ]
    gates_lr_factor: Annotated[float, "times lr: rate of the weights of attention.gates, > 0"]
    weight_decay: Annotated[float, "of AdamW, >= 0"]
    schedule: Schedule
    warmup_iterations: Warmup

    def __post_init__(self):
        check(
            0 < self.gamma <= 2,
            "pretrain.gamma",
            self.gamma,
            "a difference of two cosines lies in (0, 2]",
        )
        factors = ("new_lr_factor", "lexical_lr_factor", "gates_lr_factor")
        check_positive(self, "pretrain", "temperature", "lr", *factors)
        check_at_least(self, "pretrain", 2, "batch_size")
        check_at_least(self, "pretrain", 1, "positives", "negatives", "refresh_epochs", "epochs")
        check_at_least(self, "pretrain", 0, "random_epochs", "weight_decay")
        check_at_least(self, "pretrain", 0, "lexical_weight_decay")
        _check_warmup("pretrain", self.warmup_iterations)
        check_in(self, "pretrain", -1, 1, "positive_threshold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hnsw:
    """The graph of approximate search; names as in hnswlib."""

    m: Annotated[int, "links per row of the graph, [2, 10000]; more: better recall, more memory"]
    ef_construction: Annotated[int, "candidates looked at when a row is added, >= 1"]
    ef: Annotated[int, "candidates looked at per query, >= 1; more: better recall, slower"]
    threads: Annotated[
        int | Literal["all"],
        "that build the graph, >= 1 "
        "| all: one per core (MUFIN_WORKERS) "
        "| 1: the graph has the same bytes in each run; with more, links differ",
    ]


def _check_hnsw(section: str, hnsw: Hnsw) -> None:
    check_in(hnsw, f"{section}.hnsw", 2, 10_000, "m")  # hnswlib cuts a larger number
    check_at_least(hnsw, f"{section}.hnsw", 1, "ef_construction", "ef")
    check(
        hnsw.threads == "all" or int(hnsw.threads) >= 1,
        f"{section}.hnsw.threads",
        hnsw.threads,
        "it must be `all` or at least 1",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieve:
    """Module II (MUFIN Sec. 3.1)."""

    model: Annotated[
        Literal["pretrain", "finetune"],
        "networks that find candidates and give the similarity in predictions (stages index and "
        "evaluate) "
        "| pretrain (paper): those of Module I "
        "| finetune: those of Module IV",
    ]
    vectors: Annotated[
        Literal["bag", "vec"],
        "what a label is found by "
        "| bag (paper): its descriptors and the mean x of its datapoints "
        "| vec (released code): its one vector z (Table 4)",
    ]
    shortlist: Annotated[int, "K, labels found per datapoint, >= 1; paper 100"]
    search: Search
    hnsw: Annotated[Hnsw, "the graph of approximate search, where hnsw is used"]

    def __post_init__(self):
        _check_hnsw("retrieve", self.hnsw)
        check_at_least(self, "retrieve", 1, "shortlist")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Module III (MUFIN Sec. 3.1)."""

    a_c: Annotated[
        Literal["attention", "concat", "none"],
        "attention: A_C as in the paper "
        "| concat: two layers on x and z (MUFIN-ConCat, Table 4) "
        "| none: x is the same for all labels (MUFIN-no A_C)",
    ]
    free_vectors: Annotated[
        Literal["xavier", "centroid", "ridge"],
        "eta at the start (directed: not used) "
        "| xavier (paper): random "
        "| centroid: mean x of the label's datapoints "
        "| ridge: a linear regression on x",
    ]
    ridge: Annotated[float, "L2 penalty of that regression, > 0 (only free_vectors: ridge)"]
    classifier: Annotated[
        Literal["mufin", "prime", "directed"],
        "w of a label "
        "| mufin (paper): z and eta, mixed by alpha "
        "| prime: z, eta and mean x of the label's datapoints, by a small attention over the three "
        "| directed: M z + eta, with a learnt matrix M for all labels, for relations that hold in "
        "one direction; eta starts at 0",
    ]
    alpha: Annotated[
        float,
        "classifier: mufin: alpha at the start, (0, 1]; paper 0.5 "
        "| 1: stays 1, so that w = z (MUFIN alpha = 1, Table 4)",
    ]
    normalise_classifier: Annotated[
        bool, "true: w has length 1 (released code) | false: as in the paper's Fig. 2b"
    ]

    def __post_init__(self):
        check_positive(self, "transfer", "ridge")
        check(
            0 < self.alpha <= 1,
            "transfer.alpha",
            self.alpha,
            "a weight of the label embedding lies in (0, 1]",
        )
        check(
            self.classifier == "mufin" or self.alpha < 1,
            "transfer.alpha",
            self.alpha,
            f"with transfer.classifier: {self.classifier}, which has no alpha, w = z cannot be "
            "asked for: set the classifier to mufin, or alpha below 1",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetune:
    """Module IV (MUFIN Sec. 3.1)."""

    loss: Annotated[
        Literal["hinge", "softmax"],
        "hinge (paper): positives to score 1, negatives below gamma "
        "| softmax: over the labels of the batch",
    ]
    candidates: Annotated[
        Literal["shortlist", "all"],
        "shortlist (paper): negatives come from the shortlist "
        "| all: every label that is not true is one, for small catalogs; positives, negatives and "
        "random_negatives below are not used",
    ]
    gamma: Annotated[
        float, "hinge: margin on negative scores, a cosine, [-1, 1]; paper 0.5 | softmax: not used"
    ]
    temperature: Annotated[float, "softmax: divides the scores, > 0 | hinge: not used"]
    positives_from: Annotated[
        Literal["all", "shortlist"],
        "all (paper): every true label can be a positive "
        "| shortlist (released code): those in the shortlist; the others are neither positive nor "
        "negative",
    ]
    positives: Annotated[int, "|S_i|, random true labels per datapoint, >= 1; paper 2"]
    negatives: Annotated[int, "|T_i|, wrong labels of the shortlist per datapoint, >= 0; paper 12"]
    random_negatives: Annotated[
        int, "more negatives per datapoint, drawn from all labels, >= 0; paper 0"
    ]
    batch_size: Annotated[int, "datapoints per batch, >= 1; paper 200"]
    epochs: Annotated[int, "passes over the train datapoints, >= 1; paper 20"]
    lr: Annotated[float, "peak learning rate (AdamW) of encoders and A_S, > 0; paper 5e-5"]
    attention_lr_factor: Annotated[float, "times lr: rate of A_C, > 0; paper 1, released code 10"]
    free_lr_factor: Annotated[
        float,
        "times lr: rate of eta and alpha, > 0; paper 1, with which alpha practically stays where "
        "it starts (20 epochs move its logit by at most 0.014); released code 100",
    ]
    free_update: Annotated[
        Literal["auto", "rows", "dense"],
        "auto: dense where it fits in a quarter of the GPU's free memory, on a CPU for up to four "
        "labels per label of a step; otherwise rows "
        "| rows: a step changes eta and alpha of the batch's labels alone (SparseAdam), at a cost "
        "that does not grow with the number of labels "
        "| dense (paper): of all labels (AdamW)",
    ]
    free_precision: Annotated[
        Literal["fp32", "bf16"],
        "fp32 (paper): eta and its moments in float32 "
        "| bf16: in bfloat16 with stochastic rounding, and without a gradient of all labels at "
        "once: 6 bytes per number in place of 16; needs candidates: all, loss: softmax, "
        "free_update: dense or auto, transfer.a_c: none and transfer.classifier: mufin",
    ]
    lexical_lr_factor: Annotated[float, "times lr: rate of the lexical vectors, > 0"]
    lexical_weight_decay: Annotated[
        float, "of the lexical vectors in a step; words that tell little become short; >= 0"
    ]
    gates_lr_factor: Annotated[float, "times lr: rate of the weights of attention.gates, > 0"]
    weight_decay: Annotated[float, "of AdamW, >= 0"]
    schedule: Schedule
    warmup_iterations: Warmup
    train_encoders: Annotated[
        bool, "true (paper): E_V and E_T train on | false: what they give is computed once"
    ]
    train_labels: Annotated[
        bool,
        "true (paper): each step computes z of its labels, with gradients "
        "| false: z of all labels is computed once per epoch, so that candidates: all reaches "
        "millions of labels; needs candidates: all, loss: softmax and transfer.a_c: none",
    ]
    select: Annotated[
        Literal["last", "valid"],
        "last (paper): keep the last epoch | valid: the epoch with the best P@1 + P@5 on valid",
    ]

    def __post_init__(self):
        check(
            -1 <= self.gamma <= 1, "finetune.gamma", self.gamma, "a cosine margin lies in [-1, 1]"
        )
        factors = ("attention", "free", "lexical", "gates")
        check_positive(self, "finetune", "temperature", "lr", *(f"{n}_lr_factor" for n in factors))
        check_at_least(self, "finetune", 1, "positives", "batch_size", "epochs")
        check_at_least(self, "finetune", 0, "negatives", "random_negatives", "weight_decay")
        check_at_least(self, "finetune", 0, "lexical_weight_decay")
        _check_warmup("finetune", self.warmup_iterations)
        for setting, needs in self.of_all_labels().items():
            for name, wanted in (("candidates", "all"), ("loss", "softmax")):
                check(
                    not needs or getattr(self, name) == wanted,
                    f"finetune.{name}",
                    getattr(self, name),
                    f"with {setting} it must be {wanted}",
                )
        check(
            self.free_precision == "fp32" or self.free_update != "rows",
            "finetune.free_update",
            self.free_update,
            "with free_precision: bf16 it must be dense or auto",
        )

    def of_all_labels(self) -> dict[str, bool]:
        """Settings for the softmax over all labels without A_C, and whether they are in use."""
        return {
            "free_precision: bf16": self.free_precision == "bf16",
            "train_labels: false": not self.train_labels,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The label side of prediction (MUFIN Sec. 3.1)."""

    search: Search
    hnsw: Annotated[Hnsw, "the graph of approximate search, where hnsw is used"]
    title_ridge: Annotated[
        float,
        "L2 penalty of a linear classifier per label on TF-IDF words of titles, >= 0; "
        "evaluate.ridge_weights adds its score "
        "| 0: none (paper)",
    ]
    voters: Annotated[
        int,
        "nearest train datapoints of a datapoint, which vote for their labels, >= 0; "
        "evaluate.vote_weights adds the votes "
        "| 0: none (paper)",
    ]
    vote_temperature: Annotated[
        float, "the cosine to a voter is divided by it, before a softmax over the voters, > 0"
    ]

    def __post_init__(self):
        _check_hnsw("index", self.hnsw)
        check_at_least(self, "index", 0, "title_ridge", "voters")
        check_positive(self, "index", "vote_temperature")


@dataclass(frozen=True, slots=True, kw_only=True)
class Propensity:
    """Constants of PSP@k, by which a rare label counts more (Jain et al. 2016)."""

    a: Annotated[float, "A, > 0; Amazon data sets 0.6, others 0.55"]
    b: Annotated[float, "B, > 0; Amazon data sets 2.6, others 1.5"]

    def __post_init__(self):
        check_positive(self, "evaluate.propensity", "a", "b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """Prediction and metrics (MUFIN Sec. 3.1 and 4)."""

    beta: Annotated[
        float, "score = beta * classifier score + (1 - beta) * similarity, [0, 1]; paper 0.7"
    ]
    mix: Annotated[
        Literal["fixed", "chosen", "cross_validated"],
        "fixed (paper): predictions use beta "
        "| chosen: the best of betas x frequency_weights x ridge_weights x vote_weights x "
        "pair_weights by P@1 + P@5 + R@10 on valid "
        "| cross_validated: the best of these, and of each part alone, on scores of all train "
        "datapoints by networks that have not seen them; for small catalogs, whose valid chooses "
        "badly",
    ]
    folds: Annotated[
        int,
        "cross_validated: parts of train, each left out once, >= 2; every one trains a network, "
        "as long as a member does | others: not used",
    ]
    betas: Annotated[list[float], "values of beta that are tried, each in [0, 1]"]
    candidates: Annotated[
        Literal["shortlist", "all"],
        "shortlist (paper): score the nearest labels | all: score all labels, for small catalogs",
    ]
    shortlist: Annotated[int, "nearest labels per datapoint, >= 100; paper 100"]
    frequency_weights: Annotated[
        list[float],
        "weights of log(1 + train datapoints of the label) that are tried; paper [0.0]",
    ]
    ridge_weights: Annotated[
        list[float], "weights of index.title_ridge's score that are tried; paper [0.0]"
    ]
    vote_weights: Annotated[
        list[float], "weights of the votes of index.voters that are tried; paper [0.0]"
    ]
    pair_weights: Annotated[
        list[float],
        "weights of the strength of a pair in train, in [0, 1], tried on valid; for products that "
        "train has, as with curate.split: time; paper [0.0]",
    ]
    propensity: Annotated[Propensity, "constants of PSP@k, precision that favours rare labels"]
    tail: Annotated[int, "labels with fewer train datapoints are tail labels; >= 1"]
    tfidf_pairs: Annotated[
        int,
        "the reference row of the nearest train titles by TF-IDF is left out where there are more "
        "pairs of a train datapoint and one of valid or test; 3 to 12 ns each on a core; >= 0",
    ]

    def __post_init__(self):
        check_in(self, "evaluate", 0, 1, "beta")
        for beta in self.betas:
            check(0 <= beta <= 1, "evaluate.betas", beta, "each must lie in [0, 1]")
        for name in (
            "betas",
            "frequency_weights",
            "ridge_weights",
            "vote_weights",
            "pair_weights",
        ):
            check(bool(getattr(self, name)), f"evaluate.{name}", [], "it needs at least one value")
        check_at_least(self, "evaluate", 2, "folds")
        check_at_least(self, "evaluate", 100, "shortlist")  # as wide as predictions are
        check_at_least(self, "evaluate", 1, "tail")
        check_at_least(self, "evaluate", 0, "tfidf_pairs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """All settings."""

    seed: Annotated[int, "integer >= 0 for weights, batches and dropout; split: curate.seed"]
    members: Annotated[
        int, "networks trained, with seeds seed, seed + 1, ...; their scores are averaged; paper 1"
    ]
    download: Annotated[Download, "Stage download: where products and images come from."]
    curate: Annotated[
        Curate, "Stage curate: clean products, labels, and the split into train, valid and test."
    ]
    encoder: Annotated[
        EncoderParams,
        "Encoders E_V and E_T, which turn images and titles into descriptors (Sec. 3, App. D). "
        "Read by precompute, which runs what is frozen of them, and by the stages after it.",
    ]
    attention: Annotated[
        Attention,
        "Attention A_S and A_C (Sec. 3, Fig. 2d), part of the network in Modules I and IV.",
    ]
    pretrain: Annotated[
        Pretrain,
        "Module I, stage pretrain (Sec. 3.1): train E_V, E_T and A_S so that the vector of a "
        "datapoint lies near those of its labels.",
    ]
    retrieve: Annotated[
        Retrieve,
        "Module II, stage retrieve (Sec. 3.1): find each datapoint's shortlist, the K labels "
        "nearest to it.",
    ]
    transfer: Annotated[
        Transfer,
        "Module III, stage transfer (Sec. 3.1): keep E_V, E_T and A_S; start what Module I does "
        "not have: A_C, and eta and alpha of each label.",
    ]
    finetune: Annotated[
        Finetune,
        "Module IV, stage finetune (Sec. 3.1): train the classifiers and the network; negatives "
        "come from the shortlist.",
    ]
    index: Annotated[
        Index,
        "Stage index (Sec. 3.1, prediction): vectors and classifiers of all labels, and the "
        "search among them, as predictions use them.",
    ]
    evaluate: Annotated[
        Evaluate,
        "Stage evaluate (Sec. 3.1, prediction; Sec. 4): rank labels for valid and test, and "
        "compute the metrics.",
    ]

    def __post_init__(self):
        check(self.seed >= 0, "seed", self.seed, "it must be at least 0")
        check(self.members >= 1, "members", self.members, "it must be at least 1")
        check(
            self.encoder.dim % self.attention.heads == 0,
            "attention.heads",
            self.attention.heads,
            f"it must divide encoder.dim ({self.encoder.dim})",
        )
        check(
            self.finetune.candidates == "all"
            or self.finetune.negatives + self.finetune.random_negatives > 0,
            "finetune.negatives",
            self.finetune.negatives,
            "with candidates: shortlist a step needs negatives",
        )
        check(
            self.finetune.select == "last" or self.curate.valid > 0,
            "finetune.select",
            self.finetune.select,
            "with curate.valid: 0 there is nothing to select by",
        )
        self._check_vectors()
        for setting, needs in self.finetune.of_all_labels().items():
            check(
                not needs or self.transfer.a_c == "none",
                "transfer.a_c",
                self.transfer.a_c,
                f"with finetune.{setting} it must be none",
            )
        check(
            self.finetune.free_precision == "fp32" or self.transfer.classifier == "mufin",
            "transfer.classifier",
            self.transfer.classifier,
            "with finetune.free_precision: bf16 it must be mufin",
        )
        check(
            self.index.title_ridge > 0 or self.evaluate.ridge_weights == [0.0],
            "evaluate.ridge_weights",
            self.evaluate.ridge_weights,
            "without index.title_ridge it must be [0.0]",
        )
        check(
            self.index.voters > 0 or self.evaluate.vote_weights == [0.0],
            "evaluate.vote_weights",
            self.evaluate.vote_weights,
            "without index.voters it must be [0.0]",
        )

    def _check_vectors(self) -> None:
        kind, given = self.encoder.image.kind, self.download.image_vectors.location
        if "image" not in self.encoder.modalities:
            return
        check(
            self.download.source != "sample" or given is None,
            "download.image_vectors.location",
            given,
            "the sample has images of its own: set it to null",
        )
        check(
            kind != "vectors" or given is not None,
            "download.image_vectors.location",
            given,
            "with encoder.image.kind: vectors it must be a file of vectors",
        )
        check(
            kind == "vectors" or given is None,
            "encoder.image.kind",
            kind,
            "with download.image_vectors.location, which takes the place of images, it must be "
            "vectors",
        )


def load_params(path: Path = Path("params.yaml")) -> Params:
    """All settings of a file, checked; raises ParamsError in one sentence."""
    return params_of(read_settings(path), str(path))


def params_of(content: object, source: str = "params.yaml") -> Params:
    """Checked settings of what `source` says; raises ParamsError in one sentence."""
    if content is None:
        raise ParamsError(
            f"{source} has no settings; {written_by(Path(source))} writes all of them"
        )
    if not isinstance(content, dict):
        raise ParamsError(
            f"{source} is {shown(content)}; it must be sections of settings, see `mufin use`"
        )
    return build(Params, content)


def meanings(kind: type) -> dict[str, str]:
    """{field: its meaning} of a dataclass of settings."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in fields(kind)}


def sections(kind: type) -> dict[str, type]:
    """{field: its dataclass} of those fields of a dataclass of settings that are sections."""
    hints = typing.get_type_hints(kind).items()
    return {name: hint for name, hint in hints if isinstance(hint, type) and is_dataclass(hint)}
