"""Chunk files read straight into place hold what Zarr reads; what is not ours is left to Zarr."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import dasklmm
from dasklmm import errors
from dasklmm.store import arrays
from dasklmm.store.chunk_files import ChunkFiles, ChunkRows, chunk_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chunks")


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 5),
    chunk=st.integers(1, 45),
    start=st.integers(-50, 50),
    stop=st.integers(-50, 50),
    step=st.integers(1, 3),
    dtype=st.sampled_from(["f4", "f8", "i1", "i8"]),
)
def test_any_rows_are_those_of_zarr(folder, rows, columns, chunk, start, stop, step, dtype):
    values = np.arange(rows * columns).reshape(rows, columns).astype(dtype)
    path = folder / "a"
    target = zarr.create_array(
        path, shape=values.shape, chunks=(chunk, columns), dtype=dtype, overwrite=True,
        compressors=[zarr.codecs.Crc32cCodec()],
    )  # fmt: skip
    target[...] = values + 1  # no chunk is empty, which Zarr would leave out
    reader = pickle.loads(pickle.dumps(chunk_files(zarr.open_array(path, mode="r"))))
    got = reader[start:stop:step, 1:]
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got, (values + 1)[start:stop:step, 1:])


def test_rotated_alternatives_are_read_by_it(folder, monkeypatch):
    """fit_alternatives on a path gives the same numbers as on the array in memory."""
    rng = np.random.default_rng(0)
    pa = rng.standard_normal((90, 30)).astype(np.float32)
    arrays.write_array(folder / "pa.zarr", pa, ("variant", "eigen"), chunk_bytes=7 * 120)
    model = dasklmm.LinearMixedModel(rng.standard_normal(30), np.ones((30, 1)), np.linspace(3, 0.1, 30)).fit()
    pieces, chunks, held_rows = ChunkFiles.pieces, [], []
    monkeypatch.setattr(ChunkRows, "__array__", lambda self, *_, **__: held_rows.append(self))
    monkeypatch.setattr(
        ChunkFiles, "pieces", lambda self, chunk, held: [chunks.append(chunk), pieces(self, chunk, held)][1]
    )
    lazy = model.fit_alternatives(folder / "pa.zarr", partition_size=20)
    want = model.fit_alternatives(pa, dims=("variant", "eigen")).compute()
    np.testing.assert_allclose(lazy["beta"].compute(), want["beta"], rtol=1e-12)
    assert set(chunks) == set(range(13))
    assert not held_rows  # a block is never there as a whole


@pytest.mark.parametrize("damage", ["bit", "short", "long"])
def test_damage_is_an_error(folder, damage):
    path = folder / damage
    arrays.write_array(path, np.ones((10, 3)), ("variant", "eigen"), chunk_bytes=72)
    reader = chunk_files(zarr.open_array(path, mode="r"))
    file = path / "c" / "1" / "0"
    data = bytearray(file.read_bytes())
    if damage == "bit":
        data[5] ^= 4
    file.write_bytes(data[:-3] if damage == "short" else data + b"x" if damage == "long" else data)
    np.testing.assert_array_equal(np.asarray(reader[:3, :]), np.ones((3, 3)))
    with pytest.raises(errors.StoreError, match=r"c/1/0' is damaged"):
        np.asarray(reader[2:5, :])


def test_what_zarr_has_to_read(folder):
    """Compression, sharding, other chunks, byte orders and formats, gaps, and other stores."""
    crc = [zarr.codecs.Crc32cCodec()]
    given = {"shape": (8, 4), "chunks": (2, 4), "dtype": "f4", "overwrite": True}
    others = {
        "compressed": given,
        "columns": {**given, "chunks": (2, 2), "compressors": crc},
        "sharded": {**given, "shards": (4, 4), "compressors": crc},
        "order": {**given, "compressors": crc, "serializer": zarr.codecs.BytesCodec(endian="big")},
        "format 2": {**given, "zarr_format": 2},
        "names": {**given, "compressors": crc, "chunk_key_encoding": {"name": "v2", "separator": "."}},
    }
    for name, options in others.items():
        array = zarr.create_array(folder / name.replace(" ", ""), **options)
        array[...] = 1.0
        assert chunk_files(array) is None, name
    gaps = zarr.create_array(folder / "gaps", compressors=crc, **given)
    gaps[:4] = 1.0
    assert chunk_files(gaps) is None
    held = zarr.create_array({}, **{k: v for k, v in given.items() if k != "overwrite"}, compressors=crc)
    held[...] = 1.0
    assert chunk_files(held) is None
    assert chunk_files(np.ones((2, 2))) is None
