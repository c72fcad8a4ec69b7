"""Inference optimisations that a deployment uses, as a problem states them."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_ops.dtypes import Precision
from model_ops.errors import (
    CatalogueError,
    DeploymentError,
    GenzSizeError,
    ProblemError,
    nearest,
)
from model_ops.opcost import RESIDENT, Placement
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.expert_load import BALANCED, ExpertLoad
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Lora
from model_ops.serving.speculative import Speculation
from problems import catalogue
from problems.fields import messages

Share = Annotated[float, Field(ge=0, le=1)]

NGRAM = "ngram"
MTP = "mtp"
EAGLE = "eagle"
_DRAFTERS = (NGRAM, MTP, EAGLE)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SpeculationTable(_Table):
    """Speculative decoding: who guesses, how many tokens, how often right.

    Parameters
    ----------
    drafter
        ``ngram`` (looked up in the text), ``mtp`` (the model's own prediction
        layers), ``eagle`` (one more layer like the model's last), or the catalogue
        name or config of a draft model.
    guessed
        Tokens guessed per step.
    acceptance
        Probability that a guess is accepted, given that those before it are. It
        depends on the text and has no default.
    """

    drafter: Annotated[str, Field(min_length=1, max_length=300)]
    guessed: Annotated[int, Field(ge=1, le=64)]
    acceptance: Share

    def speculation(self, arch: ModelArch, precision: Precision) -> Speculation:
        """Return it as the model takes it.

        Raises
        ------
        ProblemError
            If the model has no prediction layers, or there is no such drafter.
        """
        drafter, formats = self._arch(arch), precision
        if drafter is not None and self.drafter not in _DRAFTERS:
            formats = drafter.precision
        return Speculation(self.guessed, self.acceptance, drafter, formats)

    def _arch(self, arch: ModelArch) -> ModelArch | None:
        if self.drafter == NGRAM:
            return None
        if self.drafter == EAGLE:
            return arch.guessing_with(arch.layers[-1])
        if self.drafter == MTP:
            if not arch.predictors:
                raise ProblemError(
                    f"speculation.drafter: {arch.name} has no multi-token prediction "
                    "layers; give ngram, eagle or a draft model"
                )
            return arch.guessing_with(arch.predictors[0])
        try:
            return catalogue.load_model(self.drafter)
        except CatalogueError:
            hint = nearest(self.drafter, (*_DRAFTERS, *catalogue.names("models")))
            raise ProblemError(
                f"speculation.drafter: unknown drafter '{self.drafter}'{hint}"
            ) from None
        except GenzSizeError as error:
            raise ProblemError(f"speculation.drafter: {error}") from None


class LoraTable(_Table):
    """Low-rank adapters served beside the model."""

    rank: Annotated[int, Field(ge=1, le=4096)]
    adapters: Annotated[int, Field(ge=1, le=100_000)] = 1


class ExpertsTable(_Table):
    """How evenly tokens choose among experts.

    Parameters
    ----------
    alpha
        Exponent of the experts' popularity as a power law; 0 for balance.
    redundant
        Further copies of popular experts in each layer (EPLB).
    """

    alpha: Annotated[float, Field(ge=0, le=5)] = 0.0
    redundant: Annotated[int, Field(ge=0, le=10_000)] = 0


class OffloadTable(_Table):
    """Shares kept in the NPU's second, larger memory (its host's, mostly)."""

    weights: Share = 0.0
    cache: Share = 0.0


class Optimisations(_Table):
    """All of them; each is off unless it is given."""

    speculation: SpeculationTable | None = None
    lora: LoraTable | None = None
    experts: ExpertsTable = ExpertsTable()
    offload: OffloadTable = OffloadTable()

    @model_validator(mode="after")
    def _spare_experts_follow_popularity(self) -> Self:
        if self.experts.redundant and not self.experts.alpha:
            raise ValueError("experts.redundant has no use where alpha is 0")
        return self

    def features(self, arch: ModelArch, precision: Precision) -> dict[str, Any]:
        """Return the fields of `Replica` that they set.

        Raises
        ------
        ProblemError
            If the model lacks what they need: prediction layers, experts.
        """
        if self.experts.alpha and not arch.num_experts:
            raise ProblemError(f"experts.alpha: {arch.name} has no experts")
        lora, experts, offload = self.lora, self.experts, self.offload
        moved = offload.weights or offload.cache
        load = ExpertLoad(experts.alpha, experts.redundant)
        return {
            "speculation": self.speculation
            and self.speculation.speculation(arch, precision),
            "lora": lora and Lora(lora.rank, lora.adapters),
            "experts": load if experts.alpha else BALANCED,
            "placement": Placement(offload.weights, offload.cache)
            if moved
            else RESIDENT,
        }

    def rule_broken_by(self, arch: ModelArch, split: Parallelism) -> str | None:
        """Return why model and drafter cannot be split so, if they cannot."""
        if (broken := arch.rule_broken_by(split)) is not None:
            return broken
        if self.speculation is None:
            return None
        drafter = self.speculation.speculation(arch, arch.precision).drafter
        if drafter is None:
            return None
        # A drafter without experts has nothing for ep and dp to split.
        ep, dp = (split.ep, split.dp) if drafter.num_experts else (1, 1)
        alone = Parallelism(split.tp, 1, ep, dp, split.cp)
        broken = drafter.rule_broken_by(alone)
        return broken and f"drafter {drafter.name}: {broken}"

    def check(self, arch: ModelArch, split: Parallelism) -> None:
        """Raise `DeploymentError` if model or drafter cannot be split so."""
        if (broken := self.rule_broken_by(arch, split)) is not None:
            raise DeploymentError(f"{arch.name}: {broken}")

    @property
    def text(self) -> str:
        """What is used, for reports; empty if nothing is."""
        parts = []
        if (guess := self.speculation) is not None:
            parts.append(
                f"speculation by {guess.drafter}, {guess.guessed} tokens, "
                f"{guess.acceptance:.0%} accepted"
            )
        if self.lora is not None:
            parts.append(f"{self.lora.adapters} LoRA adapters of rank {self.lora.rank}")
        if self.experts.alpha:
            spare = f", {self.experts.redundant} redundant experts"
            parts.append(
                f"expert popularity i^-{self.experts.alpha:g}"
                + spare * bool(self.experts.redundant)
            )
        for name, share in (
            ("weights", self.offload.weights),
            ("KV cache", self.offload.cache),
        ):
            if share:
                parts.append(f"{share:.0%} of the {name} offloaded")
        return "; ".join(parts)


def optimisations_of(tables: Mapping[str, Any]) -> Optimisations:
    """Return the optimisations that a mapping states.

    Raises
    ------
    ProblemError
        One message that names every wrong field.
    """
    try:
        return Optimisations.model_validate(tables)
    except ValidationError as error:
        raise ProblemError(messages(error, Optimisations)) from None
