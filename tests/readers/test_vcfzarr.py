"""VCF-Zarr: missing and fill values, several ALTs, dosages, and stores of this package."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

import dasklmm
from dasklmm.errors import GenotypeFormatError, StoreError
from dasklmm.store.genotypes import write_genotypes

CALLS = np.array(
    [
        [[0, 0], [0, 1], [1, 1], [-1, 0]],
        [[0, 2], [1, 2], [2, 2], [0, 0]],  # two ALTs
        [[1, -2], [0, -2], [-1, -2], [1, 1]],  # haploid calls: filled with -2
        [[-2, -2], [-1, -1], [0, 0], [1, 0]],
    ],
    dtype=np.int8,
)
ALLELES = np.array([["A", "C", ""], ["G", "T", "C"], ["T", "TA", ""], ["C", "G", ""]])
DOSAGE = np.array([[0, 1, 2, -1], [0, 1, 0, 0], [1, 1, 2, 0], [1, 0, -1, 2], [-1, -1, 0, 1]])
IDS = ["rs1", "rs2:T", "rs2:C", "7:300:T:TA", "7:400:C:G"]


def vcf_zarr(path, zarr_format=3, dosages=None, calls=CALLS):
    group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)

    def put(name, values, chunks=None):
        if values.dtype.kind == "U":
            values = values.astype(np.dtypes.StringDType())
        group.create_array(name, data=values, chunks=chunks or values.shape)

    put("contig_id", np.array(["X", "7"]))
    put("sample_id", np.array(["a", "b", "001", "d"]))
    put("variant_contig", np.array([0, 1, 1, 1], dtype=np.int8))
    put("variant_position", np.array([100, 200, 300, 400], dtype=np.int32))
    put("variant_id", np.array(["rs1", "rs2", ".", ""]))
    put("variant_allele", ALLELES)
    if calls is not None:
        put("call_genotype", calls, (2, 3, 2))
    for name, values in (dosages or {}).items():
        put(name, values, (2, 3, *values.shape[2:]))
    return path


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("chunks", ["auto", 1, 2, 3])
def test_one_row_an_alternate_allele(tmp_path, zarr_format, chunks, no_compute):
    path = vcf_zarr(tmp_path / "v.vcz", zarr_format)
    with no_compute():
        ds = dasklmm.open_genotypes(path, chunks=chunks)
    assert ds["dosage"].dtype == np.int8
    np.testing.assert_array_equal(ds["dosage"].values, DOSAGE)
    np.testing.assert_array_equal(ds["dosage"][[0, 3], 1:].values, DOSAGE[[0, 3], 1:])
    np.testing.assert_array_equal(ds["dosage"][2:2].values, DOSAGE[2:2])
    assert ds["variant_contig"].values.tolist() == ["X", "7", "7", "7", "7"]
    assert ds["variant_position"].values.tolist() == [100, 200, 200, 300, 400]
    assert ds["variant_effect_allele"].values.tolist() == ["C", "T", "C", "TA", "G"]
    assert ds["variant_other_allele"].values.tolist() == ["A", "G", "G", "T", "C"]
    assert ds["variant_id"].values.tolist() == IDS
    assert ds["sample_id"].values.tolist() == ["a", "b", "001", "d"]


@pytest.mark.parametrize("name", ["call_DS", "call_dosage"])
@pytest.mark.parametrize("per_alt", [False, True])
def test_dosages(tmp_path, name, per_alt):
    values = np.array(
        [[0.1, 1.9, np.nan, -1], [0.5, 0.6, 0.7, 0.8], [1, 1, 1, 1.5], [0, 0, -2, 2]], np.float32
    )
    if per_alt:
        values = np.stack([values, values / 2], axis=2)
    path = vcf_zarr(tmp_path / "v.vcz", dosages={name: values})
    assert dasklmm.open_genotypes(path)["dosage"].dtype == np.int8
    got = dasklmm.open_genotypes(path, field="dosage", chunks=2)["dosage"]
    assert got.dtype == np.float32
    first = values[..., 0] if per_alt else values
    second = values[..., 1] if per_alt else values
    want = np.array([first[0], first[1], second[1], first[2], first[3]])
    want[want < 0] = np.nan
    np.testing.assert_array_equal(got.values, want)
    alone = dasklmm.open_genotypes(vcf_zarr(tmp_path / "w.vcz", dosages={name: values}, calls=None))
    np.testing.assert_array_equal(alone["dosage"].values, want)


def test_what_is_missing_or_disagrees_is_named(tmp_path):
    path = vcf_zarr(tmp_path / "v.vcz", calls=None)
    with pytest.raises(GenotypeFormatError, match="holds no call_DS or call_dosage"):
        dasklmm.open_genotypes(path)
    with pytest.raises(GenotypeFormatError, match="holds no call_genotype"):
        dasklmm.open_genotypes(path, field="genotype")
    path = vcf_zarr(tmp_path / "w.vcz", calls=CALLS[:, :3])
    with pytest.raises(GenotypeFormatError, match="4 variants and 4 samples"):
        dasklmm.open_genotypes(path)
    zarr.open_group(str(tmp_path / "e.zarr"), mode="w")
    with pytest.raises(GenotypeFormatError, match="lacks sample_id, variant_contig"):
        dasklmm.open_genotypes(tmp_path / "e.zarr")
    path = vcf_zarr(tmp_path / "x.vcz", dosages={"call_DS": np.ones((4, 4, 1), np.float32)})
    with pytest.raises(GenotypeFormatError, match="1 values a call, and a site has 2 ALT"):
        dasklmm.open_genotypes(path, field="dosage")


def test_a_pickled_array_is_refused(tmp_path):
    import json

    path = vcf_zarr(tmp_path / "v.vcz", zarr_format=2)
    metadata = path / "sample_id" / ".zarray"
    content = json.loads(metadata.read_text())
    content["dtype"] = "|O"
    content["filters"] = [{"id": "pickle", "protocol": 5}]
    metadata.write_text(json.dumps(content))
    with pytest.raises(GenotypeFormatError, match="pickle"):
        dasklmm.open_genotypes(path)


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
def test_round_trip_of_own_store(tmp_path, dtype, no_compute):
    source = dasklmm.simulate(30, 200, seed=3)
    if dtype == np.float32:
        source["dosage"] = source["dosage"].where(source["dosage"] >= 0).astype(dtype)
    write_genotypes(source, tmp_path / "g.zarr")
    with no_compute():
        back = dasklmm.open_genotypes(tmp_path / "g.zarr", chunks=64)
    assert back["dosage"].dtype == dtype
    np.testing.assert_array_equal(back["dosage"].values, source["dosage"].values)
    for name in back.coords:
        assert back[name].values.tolist() == source[name].values.tolist()
    with pytest.raises(StoreError, match="overwrite=True"):
        write_genotypes(source, tmp_path / "g.zarr")
    write_genotypes(source.isel(variant=slice(50)), tmp_path / "g.zarr", overwrite=True)
    assert dasklmm.open_genotypes(tmp_path / "g.zarr").sizes["variant"] == 50
