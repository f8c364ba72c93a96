"""VCF-Zarr: missing and fill values, several ALTs, dosages, and stores of this package."""

from __future__ import annotations

import pickle
import shutil
import sys
import warnings

import dask
import fsspec
import numpy as np
import pytest
import zarr
from bed_reader import to_bed

import dasklmm
from dasklmm.errors import GenotypeFormatError, MissingExtraError, StoreError

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
DOSAGE = np.array([[0, 1, 2, -1], [0, 1, 0, 0], [1, 1, 2, 0], [2, 0, -1, 2], [-1, -1, 0, 1]])
IDS = ["rs1", "rs2:T", "rs2:C", "7:300:T:TA", "7:400:C:G"]


def vcf_zarr(path, zarr_format=3, dosages=None, calls=CALLS, alleles=ALLELES):
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
    put("variant_allele", alleles)
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
    np.testing.assert_array_equal(ds["dosage"][3].values, DOSAGE[3])
    assert ds["dosage"][3, 2].values == DOSAGE[3, 2]
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
    calls = np.maximum(CALLS, -1)  # none is haploid
    if not per_alt:
        path = vcf_zarr(tmp_path / "v.vcz", dosages={name: values})
        with pytest.raises(GenotypeFormatError, match="1 values a call, and a site has 2 ALT"):
            dasklmm.open_genotypes(path, field="dosage")
        path = vcf_zarr(tmp_path / "b.vcz", 3, {name: values}, calls, ALLELES[:, :2])
        values[values < 0] = np.nan
        for chunks in (1, 3):
            got = dasklmm.open_genotypes(path, field="dosage", chunks=chunks)["dosage"]
            np.testing.assert_array_equal(got.values, values)
        return
    values = np.stack([values, values / 2], axis=2)
    path = vcf_zarr(tmp_path / "v.vcz", dosages={name: values}, calls=calls)
    assert dasklmm.open_genotypes(path)["dosage"].dtype == np.int8
    got = dasklmm.open_genotypes(path, field="dosage", chunks=2)["dosage"]
    assert got.dtype == np.float32
    first, second = values[..., 0], values[..., 1]
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


def replace(path, **arrays):
    group = zarr.open_group(str(path), mode="a")
    for name, values in arrays.items():
        del group[name]
        group.create_array(name, data=values)
    return path


def test_arrays_that_disagree_are_refused_at_open(tmp_path):
    def opened(name, **arrays):
        return dasklmm.open_genotypes(replace(vcf_zarr(tmp_path / name), **arrays))

    with pytest.raises(GenotypeFormatError, match="1 sites have no contig; variant_contig is -1 at site 2"):
        opened("a", variant_contig=np.array([0, 1, -1, 1]))
    with pytest.raises(GenotypeFormatError, match="variant_contig is 2 at site 0, and contig_id has 2"):
        opened("b", variant_contig=np.array([2, 1, 1, 1]))
    with pytest.raises(GenotypeFormatError, match=r"variant_contig has shape \(3,\), with 4 variants"):
        opened("c", variant_contig=np.array([0, 1, 1]))
    with pytest.raises(GenotypeFormatError, match=r"call_genotype has shape \(4, 4\)"):
        opened("d", call_genotype=CALLS[..., 0])
    with pytest.raises(GenotypeFormatError, match="variant_allele has shape"):
        opened("e", variant_allele=ALLELES[:, 0].astype(np.dtypes.StringDType()))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_text_as_bytes_and_as_fixed_width(tmp_path, zarr_format):
    path = vcf_zarr(tmp_path / "v.vcz", zarr_format=zarr_format)
    names = ("sample_id", "contig_id", "variant_id", "variant_allele")
    group = zarr.open_group(str(path), mode="r")
    held = {name: np.array(group[name][...].tolist(), dtype=str) for name in names}
    held["sample_id"][0] = "é"
    replace(path, sample_id=held["sample_id"].astype(np.dtypes.StringDType()))
    want = dasklmm.open_genotypes(path).load()
    assert want["sample_id"].values.tolist() == ["é", "b", "001", "d"]
    for values in ({k: np.strings.encode(v, "utf-8") for k, v in held.items()}, held):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Zarr's, that format 3 does not specify these
            replace(path, **values)
        got = dasklmm.open_genotypes(path)
        assert got.identical(want)


def test_a_block_is_one_task_and_whole_chunks_of_sites(tmp_path):
    sites, n, stored = 3000, 40, 100
    rng = np.random.default_rng(1)
    alts = rng.integers(0, 4, sites)
    alleles = np.array([["A", *["C", "G", "T"][:k], *[""] * (3 - k)] for k in alts])
    calls = rng.integers(-1, 4, (sites, n, 2)).astype(np.int8)
    group = zarr.open_group(str(tmp_path / "v.vcz"), mode="w")
    text = np.dtypes.StringDType()
    for name, values in {
        "contig_id": np.array(["1"]).astype(text),
        "sample_id": np.arange(n).astype(str).astype(text),
        "variant_contig": np.zeros(sites, dtype=int),
        "variant_position": np.arange(sites),
        "variant_allele": alleles.astype(text),
    }.items():
        group.create_array(name, data=values)
    group.create_array("call_genotype", data=calls, chunks=(stored, 7, 1))
    ds = dasklmm.open_genotypes(tmp_path / "v.vcz")
    data = ds["dosage"].data
    assert data.numblocks[0] > 1
    assert data.numblocks[1] == 1
    ends = np.cumsum(data.chunks[0])
    position = ds["variant_position"].values
    assert (position[ends[:-1]] // stored > position[ends[:-1] - 1] // stored).all()
    (optimised,) = dask.optimize(data)
    assert len(optimised.__dask_graph__()) <= data.numblocks[0] + 1
    site = np.repeat(np.arange(sites), alts)
    allele = np.concatenate([np.arange(1, k + 1) for k in alts])
    want = (calls[site] == allele[:, None, None]).sum(axis=2)
    want[(calls[site] == -1).any(axis=2)] = -1
    np.testing.assert_array_equal(data.compute(), want)
    for part in (slice(None, None, -1), [7, 3, 3], slice(0, 0)):
        np.testing.assert_array_equal(ds["dosage"][part].values, want[part])


def test_a_process_that_does_not_see_the_path_reads_no_fill_values(tmp_path, monkeypatch):
    vcf_zarr(tmp_path / "v.vcz")
    monkeypatch.chdir(tmp_path)
    ds = dasklmm.open_genotypes("v.vcz")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(ds["dosage"].values, DOSAGE)
    # as on a worker that has not read it yet
    ds = pickle.loads(pickle.dumps(dasklmm.open_genotypes(tmp_path / "v.vcz")))
    shutil.rmtree(tmp_path / "v.vcz")
    with pytest.raises(StoreError, match="every worker can read"):
        ds["dosage"].values  # noqa: B018


def test_a_url_needs_its_file_system(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dasklmm\[cloud\]'"):
        dasklmm.open_genotypes("s3://nowhere/v.vcz")
    for end in ("bed", "bim", "fam"):
        with pytest.raises(GenotypeFormatError, match=r"is a URL, and files .* plink2zarr"):
            dasklmm.open_genotypes(f"s3://nowhere/c.{end}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3a://nowhere/v.vcz", r": pip install 'dasklmm\[cloud\]'$"),
        ("http://localhost/v.vcz", r"libfoo is absent\): pip install aiohttp requests$"),
        ("https://localhost/v.vcz", r": pip install aiohttp requests$"),
        ("gs://nowhere/v.vcz", r"needs a library that is not installed: libfoo is absent$"),
    ],
)
def test_each_file_system_says_its_remedy(monkeypatch, url, message):
    def absent(*args, **options):
        raise ImportError("libfoo is absent")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(MissingExtraError, match=message):
        dasklmm.open_genotypes(url)


def test_sites_without_an_alternate_are_counted(tmp_path, caplog):
    assert dasklmm.open_genotypes(vcf_zarr(tmp_path / "v.vcz")).attrs["sites_without_alternate"] == 0
    assert "without an ALT" not in caplog.text
    alleles = ALLELES.copy()
    alleles[0, 1], alleles[3, 1] = "", "."
    with caplog.at_level("INFO", logger="dasklmm"):
        ds = dasklmm.open_genotypes(vcf_zarr(tmp_path / "w.vcz", alleles=alleles))
    assert ds["variant_position"].values.tolist() == [200, 200, 300]
    assert ds.attrs["sites_without_alternate"] == 2
    assert type(ds.attrs["sites_without_alternate"]) is int
    assert "2 of 4 sites without an ALT" in caplog.text


def test_ploidy(tmp_path):
    def opened(name, calls, **options):
        path = vcf_zarr(tmp_path / name, dosages={"call_DS": np.ones((4, 4, 2), np.float32)})
        return dasklmm.open_genotypes(replace(path, call_genotype=calls), **options)

    assert opened("a", CALLS).attrs["ploidy"] == 2
    haploid = opened("b", CALLS[..., :1])
    assert haploid.attrs["ploidy"] == 2
    np.testing.assert_array_equal(haploid["dosage"][0].values, [0, 0, 2, -1])
    four = np.concatenate([CALLS, CALLS], axis=2)
    for name, calls, ploidy in [("c", four, 4), ("d", CALLS[..., :0], 0)]:
        with pytest.raises(GenotypeFormatError, match=f"ploidy {ploidy}.*allele frequencies"):
            opened(name, calls)
    assert opened("e", four, field="dosage").attrs["ploidy"] == 2


def test_attributes_say_the_field(tmp_path):
    path = vcf_zarr(tmp_path / "v.vcz", dosages={"call_DS": np.ones((4, 4, 2), np.float32)})
    for field in ("genotype", "dosage"):
        ds = dasklmm.open_genotypes(path, field=field)
        assert ds.attrs["field"] == field
    assert dasklmm.open_genotypes(path).attrs["field"] == "genotype"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_bio2zarr_writes_is_the_plink_it_read(tmp_path, zarr_format):
    convert = pytest.importorskip("bio2zarr.plink", reason="bio2zarr is not installed").convert
    rng = np.random.default_rng(4)
    calls = rng.integers(-1, 3, (37, 23)).astype(np.int8)
    properties = {
        "iid": [f"s{i}" for i in range(23)],
        "chromosome": ["1"] * 20 + ["X"] * 17,
        "sid": [f"rs{j}" for j in range(37)],
        "bp_position": list(range(100, 137)),
        "allele_1": ["A"] * 37,
        "allele_2": ["G"] * 37,
    }
    values = np.where(calls == -1, np.int8(-127), calls).T
    to_bed(tmp_path / "c.bed", values, properties=properties, num_threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bio2zarr's own
        convert(
            tmp_path / "c",
            tmp_path / "c.vcz",
            variants_chunk_size=5,
            samples_chunk_size=7,
            zarr_format=zarr_format,
        )
    made, source = (
        dasklmm.open_genotypes(tmp_path / "c.vcz", chunks=10),
        dasklmm.open_genotypes(tmp_path / "c"),
    )
    np.testing.assert_array_equal(made["dosage"].values, calls)
    assert made.load().equals(source.load())


def test_frequency_of_haploids(tmp_path):
    """A site that is haploid in all samples, alone or in a diploid file, has the frequency of its alleles."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2, (4, 4, 1)).astype(np.int8)
    two = CALLS.copy()
    two[0] = np.concatenate([one[0], np.full((4, 1), -2)], axis=1)
    from dasklmm.numerics import alternatives, design
    from dasklmm.numerics.scan import scan_block

    null = alternatives.alternative_test(
        design.rotated_data(rng.standard_normal(4), np.ones((4, 1)), np.ones(4)), 0.0
    )
    for name, calls in (("h", one), ("d", two)):
        ds = dasklmm.open_genotypes(vcf_zarr(tmp_path / name, calls=calls))
        got = scan_block(null, np.eye(4), ds["dosage"].values, ploidy=ds.attrs["ploidy"])
        assert got.effect_allele_frequency[0] == (one[0] == 1).mean()


def test_dosages_of_haploid_calls_are_on_the_scale_of_diploid_ones(tmp_path):
    values = np.array([[0, 1, 2, 0.5], [1, 1, 1, 1], [0.9, 0.2, 0.3, 1.5], [0, 0, 0, 2]], np.float32)
    path = vcf_zarr(tmp_path / "v.vcz", dosages={"call_DS": np.stack([values, values], axis=2)})
    got = dasklmm.open_genotypes(path, field="dosage")["dosage"]
    want = values[[0, 1, 1, 2, 3]]
    want[3, :2] *= 2  # of the third, GT says nothing
    np.testing.assert_array_equal(got.values, want)
    np.testing.assert_array_equal(got[[3, 0], 1:].values, want[[3, 0], 1:])
    values[2, 0] = 1.5
    path = vcf_zarr(tmp_path / "w.vcz", dosages={"call_DS": np.stack([values, values], axis=2)})
    with pytest.raises(GenotypeFormatError, match="above 1 of haploid calls"):
        dasklmm.open_genotypes(path, field="dosage")["dosage"].compute()
