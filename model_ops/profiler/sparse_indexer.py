"""The lightning indexer: scores all cached tokens cheaply, keeps the best ones.

Source: DeepSeek-AI, "DeepSeek-V3.2", 2025, section 2; MiniMax-M3 keeps whole blocks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from model_ops.dtypes import Dtype
from model_ops.opcost import KernelFamily, Operator
from model_ops.profiler.ops import AttentionCore, projection
from model_ops.profiler.work import Phase, Shard, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseIndexer:
    """Chooses the tokens that attention sees.

    Parameters
    ----------
    index_n_heads, index_head_dim, index_topk
        As in Hugging Face configs. One key per token for all heads.
    shared
        Whether the layer takes the choice of a layer before it, without an indexer
        of its own.
    weighted
        Whether the heads' scores are added with weights that the token tells; else
        each head chooses for its own group of query heads (MiniMax-M3).
    key_dtype
        Format of the cached keys and of the scores' arithmetic.
    """

    index_n_heads: int
    index_head_dim: int
    index_topk: int
    shared: bool = False
    weighted: bool = True
    key_dtype: Dtype = Dtype.FP8

    @property
    def _beside_queries(self) -> int:
        """Columns of the projection of keys and head weights."""
        return self.index_head_dim + (self.index_n_heads if self.weighted else 0)

    def parameters(self, hidden_size: int, query_width: int) -> int:
        """Return the projections of queries, keys and head weights, and the norms.

        Parameters
        ----------
        hidden_size
            Width of the residual stream.
        query_width
            Width of what the queries are projected from.
        """
        if self.shared:
            return 0
        queries = query_width * self.index_n_heads * self.index_head_dim
        return queries + hidden_size * self._beside_queries + 2 * self.index_head_dim

    @property
    def key_bytes(self) -> float:
        """Bytes that one token's key takes; in FP8 with an FP32 scale per 128."""
        if self.shared:
            return 0.0
        scales = 4 / 128 if self.key_dtype is Dtype.FP8 else 0.0
        return self.index_head_dim * (self.key_dtype.bytes + scales)

    def operators(
        self,
        shard: Shard,
        step: Step,
        query_width: int,
        families: Mapping[Phase, KernelFamily],
    ) -> Iterator[Operator]:
        """Yield the projections and the scores of all cached tokens.

        Each rank computes them whole.

        Parameters
        ----------
        shard, step
            The rank's share of the layer and the step's work.
        query_width
            Width of what the queries are projected from.
        families
            Kernels whose efficiency the scores share.
        """
        if self.shared:
            return
        width = self.index_n_heads * self.index_head_dim
        hidden, cp = shard.hidden_size, shard.parallelism.cp
        yield projection("index_q_proj", shard, step, k=query_width, n=width)
        yield projection("index_k_proj", shard, step, k=hidden, n=self._beside_queries)
        for segment in step.segments:
            reading = segment.phase is Phase.PREFILL
            yield AttentionCore(
                name=f"index_{segment.phase}",
                family=families[segment.phase],
                sequences=segment.sequences,
                queries=segment.queries,
                context=segment.context,
                branches=segment.branches,
                heads=self.index_n_heads,
                qk_dim=self.index_head_dim,
                v_dim=0,
                key_elements=self.index_head_dim,
                cache_bytes=self.key_bytes / self.index_head_dim,
                outputs=shard.precision.residual,
                engine=self.key_dtype.engine,
                query_shares=cp if reading else 1.0,
                key_shares=1.0 if reading else cp,
                cache=self.key_dtype,
            )
