"""`GriffinModel`: a Griffin, or a Hawk, by the words that people have in hand."""

from hybridlab.models.griffin import Griffin, GriffinConfig
from hybridlab.models.hawk import Hawk, HawkConfig


def GriffinModel(  # noqa: N802, the name that people arrive with
    d_model: int = 512,
    num_layers: int = 12,
    num_heads: int = 8,
    window_size: int = 128,
    hawk_only: bool = False,
    *,
    vocabulary: int = 256,
    backend: str = "auto",
) -> Griffin | Hawk:
    """A small Griffin with random weights: two recurrent layers, then one of local attention, and so on. Or a Hawk.

    Whatever these arguments do not say is as in `GriffinConfig`; who wants to say more takes `Griffin(GriffinConfig(...))`.

    Args:
        d_model: D, width of the stream and of the recurrence.
        num_layers: L.
        num_heads: H, heads of queries, which share one head of keys and values; the gates of the recurrence have as many
            blocks, as in the authors' code.
        window_size: keys a query sees, itself included (the authors' code does not count the query: its 127 are these 128).
        hawk_only: whether no layer attends; `window_size` then has nothing to limit.
        vocabulary: number of token ids; the 256 bytes of any text need no tokenizer. Griffin's own is 256,000, for which the
            logits of 16,384 tokens alone would take 17 GB.
        backend: what the layers pass to their ops.

    Returns:
        a `Griffin`, or a `Hawk` if `hawk_only`.

    Raises:
        ValueError: names the argument, what was expected and what came.

    Source: arXiv 2402.19427. Chapter 11.
    """
    sizes = {"d_model": d_model, "num_layers": num_layers, "num_heads": num_heads, "window_size": window_size}
    for name, size in {**sizes, "vocabulary": vocabulary}.items():
        if type(size) is not int or size < 1:
            raise ValueError(f"GriffinModel: {name} must be a positive int, got {size!r}")
    if type(hawk_only) is not bool:
        raise ValueError(f"GriffinModel: hawk_only must be True or False, got {hawk_only!r}")
    if d_model % num_heads:
        raise ValueError(f"GriffinModel: num_heads must be a divisor of d_model = {d_model}, got {num_heads}")
    if hawk_only:
        return Hawk(HawkConfig(vocabulary, d_model, num_layers, blocks=num_heads), backend)
    if d_model // num_heads % 4:
        expected = (
            f"one that leaves heads of a multiple of 4 channels of d_model = {d_model} (half of each is turned in pairs)"
        )
        raise ValueError(f"GriffinModel: num_heads must be {expected}, got {num_heads}")
    config = GriffinConfig(vocabulary, d_model, num_layers, blocks=num_heads, heads=num_heads, window=window_size)
    return Griffin(config, backend)
