"""GoldFinch's one memory of all tokens: a short code and the token id for each, from which keys and values are made anew."""

from typing import NamedTuple

import torch
from torch import nn

from hybridlab.layers import initial
from hybridlab.layers.layer import Rebuilt, Storage
from hybridlab.layers.root_norm import root_normed
from hybridlab.shapes import PastCodes, PastIds, PastInputs, Stream, TokenIds

# Added to the root of the mean square of a key.
EPS = 1e-8


class KeyCache(NamedTuple):
    """What all attention layers of a GoldFinch keep together: of every token its code and its id.

    Bytes: B * T * (code width * bytes of the dtype + 2), with 4 in the place of 2 where the vocabulary has more than 65,536
    tokens.
    """

    codes: PastCodes
    ids: PastIds


class CompressedKeys(nn.Module):
    """Codes c = A x of a stream x, and the keys that they stand for: rms(B [e ; c]), with e the token's embedding.

    rms(a) = a / (sqrt(mean(a^2)) + 1e-8). The code is all that has to be kept of x: e is found again by the token's id.

    Args:
        width: D.
        code_width: numbers in a code.
        vocabulary: number of token ids, which decides how many bytes an id takes.

    Source: GoldFinch, arXiv 2407.12077, the compressed key cache (TokenCat), and the authors' code. Chapter 11.
    """

    def __init__(self, width: int, code_width: int, vocabulary: int) -> None:
        super().__init__()
        self.compress = initial.orthogonal(width, code_width)
        self.expand = initial.orthogonal(width + code_width, width)
        self.id_dtype = torch.uint16 if vocabulary <= 1 << 16 else torch.int32

    def forward(self, x: Stream, input_ids: TokenIds, embeddings: PastInputs, past: KeyCache) -> tuple[KeyCache, Rebuilt]:
        """The cache after the tokens of this call, and the keys of all tokens so far.

        Args:
            x: what is compressed, (B, T, D).
            input_ids: of this call, (B, T).
            embeddings: of all S + T tokens so far, (B, S + T, D).
            past: of the S tokens before.
        """
        codes = torch.cat((past.codes, self.compress(x)), 1)
        # Few operators know uint16; all devices can convert it.
        ids = torch.cat((past.ids.to(input_ids.dtype), input_ids), 1).to(self.id_dtype)
        keys = root_normed(self.expand(torch.cat((embeddings, codes), -1)), EPS)
        return KeyCache(codes, ids), Rebuilt(keys, root_normed(embeddings, EPS))

    def cache_after(self, batch: int, length: int, storage: Storage) -> KeyCache:
        """The cache after `length` tokens."""
        ids = torch.zeros(batch, length, dtype=self.id_dtype, device=storage.device)
        return KeyCache(storage.cached(batch, length, self.compress.out_features), ids)
