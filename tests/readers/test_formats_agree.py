"""One cohort in every format, each written by the format's own library: the same scan of each."""

from __future__ import annotations

import pickle
import shutil
import struct
import subprocess
import sys

import bgen
import cyvcf2
import numpy as np
import pgenlib
import pytest
import xarray as xr
from bed_reader import to_bed
from click.testing import CliRunner

import dasklmm
from dasklmm.cli import main
from dasklmm.errors import GenotypeFormatError, OptionError, SampleError, StoreError
from dasklmm.readers.pgen import _has_dosages
from dasklmm.readers.vcf import convert_vcf

FORMATS = ("bed", "pgen", "bgen", "vcf", "dosage.pgen", "dosage.bgen", "nc")
COORDINATES = (
    "variant_id",
    "variant_contig",
    "variant_position",
    "variant_effect_allele",
    "variant_other_allele",
)


def write_bed(path, calls, ds):
    names = {
        "iid": ds["sample_id"].values,
        "sid": ds["variant_id"].values,
        "chromosome": ds["variant_contig"].values,
        "bp_position": ds["variant_position"].values,
        "allele_1": ds["variant_effect_allele"].values,
        "allele_2": ds["variant_other_allele"].values,
    }
    to_bed(path, np.where(calls == -1, np.int8(-127), calls).T, names, num_threads=1)


def write_pgen(path, values, ds):
    """int8 calls, or dosages with NaN missing."""
    calls = values.dtype == np.int8
    with pgenlib.PgenWriter(
        str(path).encode(),
        values.shape[1],
        variant_ct=values.shape[0],
        nonref_flags=False,
        dosage_present=not calls,
    ) as writer:
        for row in values:
            if calls:
                writer.append_biallelic(np.where(row == -1, np.int8(-9), row))
            else:
                writer.append_dosages(np.nan_to_num(row, nan=-9.0).astype(np.float32))
    columns = [ds[name].values for name in ("variant_contig", "variant_position", "variant_id")]
    columns += [ds["variant_other_allele"].values, ds["variant_effect_allele"].values]
    rows = ["#CHROM\tPOS\tID\tREF\tALT", *("\t".join(map(str, row)) for row in zip(*columns, strict=True))]
    path.with_suffix(".pvar").write_text("\n".join(rows) + "\n")
    path.with_suffix(".psam").write_text(
        "#IID\tSEX\n" + "".join(f"{s}\tNA\n" for s in ds["sample_id"].values)
    )


def write_bgen(path, values, ds, samples=True, **options):
    dosage = np.where(values < 0, np.nan, values).astype(float)
    # genotype probabilities of that dosage: hard calls are certain
    low = np.floor(np.minimum(dosage, 1.5))
    g = np.stack([np.maximum(0, np.where(low == k, 1 - (dosage - low), 0)) for k in range(3)], axis=-1)
    for k in (1, 2):
        g[..., k] += np.where(low == k - 1, dosage - low, 0)
    g[np.isnan(dosage)] = np.nan
    ids = ds["sample_id"].values.tolist() if samples else []
    with bgen.BgenWriter(str(path), values.shape[1], samples=ids, **options) as writer:
        for j in range(values.shape[0]):
            one = ds.isel(variant=j)
            alleles = [str(one["variant_other_allele"].values), str(one["variant_effect_allele"].values)]
            name = str(one["variant_id"].values)
            contig, position = str(one["variant_contig"].values), int(one["variant_position"].values)
            writer.add_variant(name, name, contig, position, alleles, g[j], bit_depth=16)


def write_vcf(path, calls, ds, contigs):
    header = ["##fileformat=VCFv4.3", '##FILTER=<ID=PASS,Description="">']
    header += [f"##contig=<ID={c}>" for c in contigs]
    header += ['##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">']
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    header += ["\t".join([*columns, *ds["sample_id"].values.tolist()])]
    writer = cyvcf2.Writer.from_string(str(path), "\n".join(header) + "\n", mode="wz")
    texts = np.array(["0/0", "0/1", "1/1", "./."])
    for j, row in enumerate(calls):
        one = ds.isel(variant=j)
        fields = [str(one[name].values) for name in ("variant_contig", "variant_position", "variant_id")]
        fields += [str(one["variant_other_allele"].values), str(one["variant_effect_allele"].values)]
        line = "\t".join([*fields, ".", "PASS", ".", "GT", *texts[row].tolist()])
        writer.write_record(writer.variant_from_string(line))
    writer.close()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A simulated cohort, its calls, its dosages, and the path of each format."""
    folder = tmp_path_factory.mktemp("formats")
    ds = dasklmm.simulate(60, 90, n_contigs=3, n_causal=2, h_sq=0.3, missing_rate=0.05, seed=3)
    calls = ds["dosage"].values.astype(np.int8)
    assert (calls == -1).sum() > 50
    # imputed: on BGEN's 16-bit and PGEN's 15-bit grids
    noise = np.random.default_rng(0).integers(-3000, 3000, calls.shape) / 16384
    dosages = np.where(calls < 0, np.nan, np.clip(calls + noise, 0, 2))
    paths = {name: folder / f"c.{name}" for name in FORMATS}
    write_bed(paths["bed"], calls, ds)
    write_pgen(paths["pgen"], calls, ds)
    write_pgen(paths["dosage.pgen"], dosages, ds)
    write_bgen(paths["bgen"], calls, ds)
    write_bgen(paths["dosage.bgen"], dosages, ds)
    # without an index, which no Python library writes, a VCF is of one contig
    contigs = dict.fromkeys(ds["variant_contig"].values.tolist())
    of = {c: ds["variant_contig"].values == c for c in contigs}
    for c, rows in of.items():
        write_vcf(folder / f"c{c}.vcf.gz", calls[rows], ds.isel(variant=rows), contigs)
    write_vcf(folder / "c.vcf.gz", calls, ds, contigs)
    paths["vcf"] = convert_vcf([folder / f"c{c}.vcf.gz" for c in contigs], folder / "c.vcz")
    ds.drop_vars(["covariate", "covariates"]).load().to_netcdf(paths["nc"], engine="h5netcdf")
    return ds, calls, dosages, paths


def scan(ds, cohort):
    phenotype = cohort["phenotype"].rename("trait")
    return dasklmm.gwas(ds, phenotype, precision="double")


@pytest.fixture(scope="module")
def scanned(cohort):
    ds, _, dosages, _ = cohort
    given = ds.assign(dosage=(("variant", "sample"), dosages.astype(np.float32)))
    return {"genotype": scan(ds, ds), "dosage": scan(given, ds)}


@pytest.mark.parametrize("name", FORMATS)
def test_same_results(cohort, scanned, name, no_compute):
    ds, calls, dosages, paths = cohort
    with no_compute():
        got = dasklmm.open_genotypes(paths[name], chunks=20)
    for coordinate in (*COORDINATES, "sample_id"):
        np.testing.assert_array_equal(got[coordinate].values, ds[coordinate].values, err_msg=coordinate)
    imputed = name.startswith("dosage")
    # of dosages: half a step of BGEN's 16 bits twice, of PGEN's 1/16384 once
    want, step = (dosages, 5e-5) if imputed else (np.where(calls < 0, np.nan, calls), 1e-6)
    values = got["dosage"].values
    assert values.dtype == (np.float32 if imputed or name == "bgen" else np.int8)
    values = np.where(values < 0, np.nan, values)
    np.testing.assert_allclose(values, want, atol=step, rtol=0)
    rows = [0, 31, 32, 33, 7, 88]
    np.testing.assert_allclose(
        np.where((part := got["dosage"][rows, 3:].values) < 0, np.nan, part),
        want[rows, 3:],
        atol=step,
        rtol=0,
    )
    assert got["dosage"][2:2].values.shape == (0, 60)
    one, tolerance = scan(got, ds), 2e-3 if imputed else 1e-6
    expected = scanned["dosage" if imputed else "genotype"]
    assert np.array_equal(one["status"].values, expected["status"].values)
    for column in ("beta", "standard_error", "neg_log10_p_value", "effect_allele_frequency", "n"):
        np.testing.assert_allclose(
            one[column].values, expected[column].values, rtol=tolerance, atol=tolerance / 10
        )
    assert np.abs(expected["beta"].values).max() > 0.1


def test_each_pickles_and_is_read_by_processes(cohort, monkeypatch):
    _, _, _, paths = cohort
    monkeypatch.chdir(paths["bed"].parent)
    opened = {name: dasklmm.open_genotypes(paths[name].name, chunks=30) for name in FORMATS if name != "bed"}
    want = {name: ds["dosage"].values for name, ds in opened.items()}
    monkeypatch.chdir("/")
    with dasklmm.local_cluster(n_workers=2) as cluster, cluster.get_client():
        got = {name: ds["dosage"].compute() for name, ds in opened.items()}
    for name, values in want.items():
        np.testing.assert_array_equal(got[name], values)
        again = pickle.loads(pickle.dumps(opened[name]["dosage"].data)).compute(scheduler="sync")
        np.testing.assert_array_equal(again, values)


def test_prefix_fields_and_family_ids_of_pgen(cohort, tmp_path):
    ds, calls, dosages, paths = cohort
    for given in (paths["pgen"].with_suffix(""), paths["pgen"].with_suffix(".pvar"), paths["pgen"]):
        if given.suffix:  # the prefix has a .bed beside it, which comes first
            assert dasklmm.open_genotypes(given).attrs["format"] == "PLINK 2"
    as_dosage = dasklmm.open_genotypes(paths["pgen"], field="dosage")["dosage"]
    assert as_dosage.dtype == np.float32
    np.testing.assert_array_equal(as_dosage.values, np.where(calls < 0, np.nan, calls))
    as_calls = dasklmm.open_genotypes(paths["dosage.pgen"], field="genotype")["dosage"]
    assert as_calls.dtype == np.int8
    near = np.abs(dosages - np.round(dosages)) < 0.1  # PLINK's own rule for hard calls
    np.testing.assert_array_equal(as_calls.values[near], np.round(dosages[near]))
    write_pgen(tmp_path / "f.pgen", calls, ds)
    rows = "".join(f"F{k}\t{k // 2}\n" for k in range(60))
    (tmp_path / "f.psam").write_text("#FID\tIID\n" + rows)
    family = dasklmm.open_genotypes(tmp_path / "f")
    assert family["sample_id"].values[:3].tolist() == ["F0:0", "F1:0", "F2:1"]
    assert family.attrs["sample_ids_have_family"]
    marks = "\ufeff#IID\tSEX\r\n" + "".join(f"{k}\u2028\u00a0x\t1\r\n" for k in range(60))
    (tmp_path / "f.psam").write_text(marks, encoding="utf-8")
    assert dasklmm.open_genotypes(tmp_path / "f.pgen")["sample_id"].values[7] == "7\u2028\u00a0x"
    (tmp_path / "f.psam").write_text("#IID\n" + "same\n" * 60)
    with pytest.raises(SampleError):
        dasklmm.open_genotypes(tmp_path / "f.pgen")


@pytest.mark.parametrize("of", [None, 65_535, 65_545])
def test_dosages_of_one_variant_in_many_are_seen(tmp_path, of):
    """The index of a .pgen is in blocks of 65,536; a record of dosages for all samples is of type 0x40."""
    path, m = tmp_path / "m.pgen", 65_536 + 10
    calls, dosages = np.array([0, 2], np.float32), np.array([1.25, 0.5], np.float32)
    with pgenlib.PgenWriter(
        str(path).encode(), 2, variant_ct=m, nonref_flags=False, dosage_present=True
    ) as writer:
        for j in range(m):
            writer.append_dosages(dosages if j == of else calls)
    assert _has_dosages(path, m) == (of is not None)


@pytest.mark.parametrize(
    ("name", "held", "other"), [("bed", "genotype", "dosage"), ("bgen", "dosage", "genotype")]
)
def test_a_field_that_a_format_does_not_hold_is_refused(cohort, name, held, other):
    path = cohort[3][name]
    assert dasklmm.open_genotypes(path, field=held).attrs["field"] == held
    with pytest.raises(OptionError, match=f"field is '{other}', and .* only. Give field='auto' "):
        dasklmm.open_genotypes(path, field=other)


def test_layouts_of_bgen(tmp_path):
    """Phased, haploid and mixed ploidy give copies of the second allele, of 2; ids come from a .sample."""
    path = tmp_path / "l.bgen"
    with bgen.BgenWriter(str(path), 3, samples=[]) as writer:
        phased = np.array([[1, 0, 0, 1.0], [0, 1, 0, 1], [1, 0, 1, 0]])
        writer.add_variant("v1", "", "1", 100, ["A", "G"], phased, phased=True)
        mixed = np.array([[1, 0, np.nan], [0, 1, np.nan], [0, 0, 1.0]])
        writer.add_variant("", "", "X", 200, ["A", "G"], mixed, ploidy=np.array([1, 1, 2], dtype=np.uint8))
    with pytest.raises(GenotypeFormatError, match=r"holds no sample ids.*l\.sample"):
        dasklmm.open_genotypes(path)
    (tmp_path / "l.sample").write_text("ID_1 ID_2 missing\n0 0 0\nf a 0\nf b 0\n")
    with pytest.raises(GenotypeFormatError, match="2 samples"):
        dasklmm.open_genotypes(path)
    (tmp_path / "l.sample").write_text("ID_1 ID_2 missing\n0 0 0\nf a 0\nf b 0\nf c 0\n")
    path.with_suffix(".bgen.bgi").unlink(missing_ok=True)  # none is needed
    ds = dasklmm.open_genotypes(path)
    for text, message in (
        ("ID_1 ID_2 missing\n0 0 0\nf a 0 1\nf b 0 1\nf c 0 1\n", "'f' has 4 fields, and the header 3"),
        ("ID_1 ID_2 missing\n0 0 0\nf a 0\nf b\nf c 0\n", "'f' has 2 fields, and the header 3"),
        ("ID_1 ID_2 missing\nf z 0\nf a 0\nf b 0\nf c 0\n", "the types f z 0 below"),
        ("ID_1 ID_2 missing\n0 z 0\nf a 0\nf b 0\nf c 0\n", "the types 0 z 0 below"),
        ("", "0 samples"),
    ):
        (tmp_path / "l.sample").write_text(text)
        with pytest.raises(GenotypeFormatError, match=message):
            dasklmm.open_genotypes(path)
    assert ds["sample_id"].values.tolist() == ["a", "b", "c"]
    assert ds["variant_id"].values.tolist() == ["v1", "X:200:A:G"]
    np.testing.assert_array_equal(ds["dosage"].values, [[1, 2, 0], [0, 2, 2]])


def bgen_file(path, layout, body):
    """A .bgen of one variant (1:100, A and G) and four samples, by the letter of its specification."""

    def counted(text, form):
        return struct.pack(form, len(text)) + text

    names = b"".join(counted(sample, "<H") for sample in (b"a", b"b", b"c", b"d"))
    samples = struct.pack("<II", 8 + len(names), 4) + names
    header = struct.pack("<III4sI", 20, 1, 4, b"bgen", (layout << 2) | (1 << 31))
    variant = struct.pack("<I", 4) if layout == 1 else b""
    variant += counted(b"v", "<H") + counted(b"rs1", "<H") + counted(b"1", "<H") + struct.pack("<I", 100)
    variant += struct.pack("<H", 2) if layout == 2 else b""
    variant += counted(b"A", "<I") + counted(b"G", "<I")
    variant += struct.pack("<I", len(body)) + body if layout == 2 else body
    path.write_bytes(struct.pack("<I", 20 + len(samples)) + header + samples + variant)
    return path


def test_probabilities_of_layout_1_that_do_not_sum_to_1(tmp_path):
    p = np.array([[0, 1, 0], [0.1, 0.1, 0.1], [0, 0, 0], [0.125, 0.25, 0.125]])
    body = np.round(p * 32768).astype("<u2").tobytes()
    got = dasklmm.open_genotypes(bgen_file(tmp_path / "a.bgen", 1, body))["dosage"].values
    np.testing.assert_allclose(got, [[1, 1, np.nan, 1]], rtol=1e-6)


def test_ploidy_of_bgen(tmp_path):
    """Without a chromosome there is no call; with three there is no reading."""
    for ploidies, values in (((0, 2, 1, 2), [0, 255, 0, 0, 0]), ((3, 2, 2, 2), [0] * 9)):
        body = struct.pack("<IHBB", 4, 2, min(ploidies), max(ploidies)) + bytes(ploidies) + b"\0\x08"
        ds = dasklmm.open_genotypes(bgen_file(tmp_path / f"{max(ploidies)}.bgen", 2, body + bytes(values)))
        if max(ploidies) == 2:
            np.testing.assert_array_equal(ds["dosage"].values, [[np.nan, 1, 2, 2]])
        else:
            with pytest.raises(GenotypeFormatError, match=r"'rs1' at 1:100 has calls of ploidy 3"):
                ds["dosage"].compute()


def test_the_x_of_men_is_the_same_in_all_formats(tmp_path):
    """Haploid calls of a VCF and a BGEN count as PLINK holds them: frequencies and betas agree."""
    n, rng = 40, np.random.default_rng(2)
    ds = dasklmm.simulate(n, 30, n_contigs=2, missing_rate=0.0, seed=3)
    ds = ds.assign_coords(variant_contig=("variant", np.where(np.arange(30) < 15, "X", "2")))
    men = rng.random(n) < 0.5
    calls = ds["dosage"].values.astype(np.int8)
    calls[:15, men] = 2 * rng.integers(0, 2, (15, men.sum()))
    write_bed(tmp_path / "c.bed", calls, ds)
    with bgen.BgenWriter(str(tmp_path / "b.bgen"), n, samples=ds["sample_id"].values.tolist()) as writer:
        for j, row in enumerate(calls):
            ploidy = np.where(men & (j < 15), 1, 2).astype(np.uint8)
            haploid = (ploidy == 1)[:, None]
            g = np.where(haploid, np.nan, np.eye(3)[row])
            g[:, :2] = np.where(haploid, np.eye(2)[row // 2], g[:, :2])
            one = ds.isel(variant=j)
            alleles = [str(one[f"variant_{which}_allele"].values) for which in ("other", "effect")]
            name, contig = str(one["variant_id"].values), str(one["variant_contig"].values)
            writer.add_variant(
                name, name, contig, int(one["variant_position"].values), alleles, g, ploidy=ploidy
            )
    texts = [["0/0", "0/1", "1/1"], ["0", "?", "1"]]
    lines = ["##fileformat=VCFv4.3", '##FILTER=<ID=PASS,Description="">', "##contig=<ID=X>"]
    lines += ["##contig=<ID=2>", '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">']
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    lines += ["\t".join([*columns, *ds["sample_id"].values.tolist()])]
    vcfs = []
    for contig, rows in (("X", range(15)), ("2", range(15, 30))):
        body = []
        for j in rows:
            one = ds.isel(variant=j)
            fields = [str(one[f"variant_{k}"].values) for k in ("position", "id", "other_allele")]
            fields += [str(one["variant_effect_allele"].values), ".", "PASS", ".", "GT"]
            gt = [texts[int(man and contig == "X")][call] for man, call in zip(men, calls[j], strict=True)]
            body.append("\t".join([contig, *fields, *gt]))
        vcfs.append(tmp_path / f"{contig}.vcf")
        vcfs[-1].write_text("\n".join([*lines, *body]) + "\n")
    paths = [tmp_path / "c.bed", tmp_path / "b.bgen", convert_vcf(vcfs, tmp_path / "v.vcz")]
    results = [
        dasklmm.gwas(dasklmm.open_genotypes(p), ds["phenotype"].rename("y"), loco=False, precision="double")
        for p in paths
    ]
    for path, other in zip(paths[1:], results[1:], strict=True):
        for name in ("beta", "effect_allele_frequency"):
            np.testing.assert_allclose(
                other[name].values, results[0][name].values, rtol=1e-6, err_msg=str(path)
            )


def test_several_alternates_are_refused(tmp_path):
    with bgen.BgenWriter(str(tmp_path / "m.bgen"), 3, samples=["a", "b", "c"]) as writer:
        writer.add_variant("v", "rs4", "1", 7, ["A", "G", "T"], np.eye(6)[:3])
    with pytest.raises(GenotypeFormatError, match=r"'rs4' at 1:7.*3 alleles.*bcftools norm"):
        dasklmm.open_genotypes(tmp_path / "m.bgen")
    with pgenlib.PgenWriter(
        str(tmp_path / "m.pgen").encode(), 3, variant_ct=1, nonref_flags=False, allele_ct_limit=3
    ) as writer:
        writer.append_alleles(np.array([0, 1, 0, 2, 1, 1], dtype=np.int32), allele_ct=3)
    (tmp_path / "m.pvar").write_text("#CHROM\tPOS\tID\tREF\tALT\n1\t7\trs4\tA\tG,T\n")
    (tmp_path / "m.psam").write_text("#IID\na\nb\nc\n")
    with pytest.raises(GenotypeFormatError, match=r"'rs4' at 1:7.*2 ALT alleles.*multiallelics=-"):
        dasklmm.open_genotypes(tmp_path / "m.pgen")


@pytest.mark.parametrize("end", [".pvar", ".psam"])
def test_files_of_pgen_that_are_missing_or_do_not_match(cohort, tmp_path, end):
    ds, calls, _, _ = cohort
    write_pgen(tmp_path / "c.pgen", calls, ds)
    other = tmp_path / f"c{end}"
    lines = other.read_text().splitlines()
    other.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(GenotypeFormatError, match="do not belong together"):
        dasklmm.open_genotypes(tmp_path / "c.pgen")
    other.unlink()
    with pytest.raises(GenotypeFormatError, match=rf"c\{end}' is missing"):
        dasklmm.open_genotypes(tmp_path / "c.pgen")


@pytest.mark.parametrize(
    ("end", "content", "message"),
    [
        (".pvar", b"", "not a .pvar .*No variants"),
        (".pvar", b"#CHROM\tPOS\tID\tREF\tALT\n1\tx\trs1\tA\tG\n", "not a .pvar .*Invalid POS"),
        (".pvar", b"#CHROM\tPOS\tID\tREF\tALT\n1\t7\trs\xff\tA\tG\n", "is not text"),
        (".psam", b"#FID\tSEX\na\t1\n", "IID is needed"),
        (".psam", b"#FID\tIID\na\n", "sample 1 has no IID"),
        (".psam", b"", "do not belong together"),
    ],
)
def test_tables_of_pgen_that_cannot_be_read(cohort, tmp_path, end, content, message):
    ds, calls, _, _ = cohort
    write_pgen(tmp_path / "c.pgen", calls, ds)
    (tmp_path / f"c{end}").write_bytes(content)
    with pytest.raises(GenotypeFormatError, match=message):
        dasklmm.open_genotypes(tmp_path / "c.pgen")


@pytest.mark.parametrize("name", ["bgen", "pgen"])
def test_damage(cohort, tmp_path, name):
    ds, calls, _, _ = cohort
    path = tmp_path / f"c.{name}"
    (write_bgen if name == "bgen" else write_pgen)(path, calls, ds)
    opened = dasklmm.open_genotypes(path, chunks=30)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(GenotypeFormatError, match=r"damaged in variants [36]0 to|is damaged in variants"):
        opened["dosage"].compute()
    path.write_bytes(b"no such thing" * 9)
    with pytest.raises(GenotypeFormatError, match=r"is no BGEN|cannot be read"):
        dasklmm.open_genotypes(path)


def test_netcdf_names(cohort, tmp_path):
    _, calls, _, paths = cohort
    with xr.open_dataset(paths["nc"]) as given:
        given.transpose("sample", "variant", ...).to_netcdf(tmp_path / "t.nc", engine="h5netcdf")
        given.drop_vars("variant_id").rename(variant="snp").to_netcdf(tmp_path / "u.nc", engine="h5netcdf")
    np.testing.assert_array_equal(dasklmm.open_genotypes(tmp_path / "t.nc")["dosage"].values, calls)
    with pytest.raises(GenotypeFormatError, match="lacks variant_id"):
        dasklmm.open_genotypes(tmp_path / "u.nc")
    (tmp_path / "v.nc").write_text("text")
    with pytest.raises(GenotypeFormatError, match="xarray"):
        dasklmm.open_genotypes(tmp_path / "v.nc")


def test_vcf_says_how_and_conversion_keeps_what_is_there(cohort, tmp_path):
    _, _, _, paths = cohort
    vcf = paths["vcf"].with_name("c.vcf.gz")
    with pytest.raises(GenotypeFormatError, match=rf"dasklmm convert {vcf} {vcf.with_name('c.vcz')}"):
        dasklmm.open_genotypes(vcf)
    with pytest.raises(StoreError, match="exists already"):
        convert_vcf(vcf, paths["vcf"])
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter").write_text("years of work")
    with pytest.raises(StoreError, match="no VCF-Zarr, which is never replaced"):
        convert_vcf(vcf, other, overwrite=True)
    assert (other / "chapter").read_text() == "years of work"
    shutil.rmtree(other)
    copy = tmp_path / "copy.vcz"
    shutil.copytree(paths["vcf"], copy)
    one = sorted(paths["vcf"].parent.glob("c?.vcf.gz"))[-1]
    convert_vcf(one, copy, overwrite=True)
    assert (
        dasklmm.open_genotypes(copy).sizes["variant"] < dasklmm.open_genotypes(paths["vcf"]).sizes["variant"]
    )
    shutil.rmtree(copy)
    with pytest.raises(GenotypeFormatError, match=r"must be indexed.*bcftools index"):
        convert_vcf(vcf, tmp_path / "c.vcz")
    (tmp_path / "bad.vcf").write_text("no VCF\n")
    with pytest.raises(GenotypeFormatError, match="cannot be converted: it is no VCF"):
        convert_vcf(tmp_path / "bad.vcf", tmp_path / "bad.vcz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.vcf"]
    with pytest.raises(GenotypeFormatError, match="there is no VCF"):
        convert_vcf(tmp_path / "none.vcf", tmp_path / "bad.vcz")


@pytest.mark.skipif(shutil.which("tabix") is None, reason="tabix, which indexes a VCF, is not installed")
@pytest.mark.parametrize("index", [[], ["--csi"]])
def test_an_indexed_vcf_of_several_contigs_is_its_contigs_one_by_one(cohort, tmp_path, index):
    _, _, _, paths = cohort
    vcf = tmp_path / "c.vcf.gz"
    shutil.copy(paths["vcf"].with_name("c.vcf.gz"), vcf)
    subprocess.run(["tabix", *index, "-p", "vcf", vcf], check=True)
    whole, parts = (
        dasklmm.open_genotypes(path) for path in (convert_vcf(vcf, tmp_path / "c.vcz"), paths["vcf"])
    )
    assert len(set(whole["variant_contig"].values)) == 3
    assert whole.drop_attrs().identical(parts.drop_attrs())


def vcf_text(path, rows, *, contigs=("1",), samples=("a", "b")):
    """A VCF of the given rows: contig, position and the fields from FORMAT on."""
    lines = ["##fileformat=VCFv4.3", '##FILTER=<ID=PASS,Description="">']
    lines += [f"##contig=<ID={contig}>" for contig in contigs]
    lines += ['##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">']
    lines += ['##FORMAT=<ID=DS,Number=A,Type=Float,Description="Dosage">']
    columns = [
        "#CHROM",
        "POS",
        "ID",
        "REF",
        "ALT",
        "QUAL",
        "FILTER",
        "INFO",
        *(["FORMAT"] if samples else []),
    ]
    lines += ["\t".join([*columns, *samples])]
    lines += ["\t".join([c, str(p), f"rs{p}", "G", "A", ".", "PASS", ".", *rest]) for c, p, *rest in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("options", "rows", "message"),
    [
        ({"contigs": ()}, [("1", 7, "GT", "0/1", "1/1")], "'1' stands in its rows and in no .* ##contig"),
        ({"samples": ()}, [("1", 7)], "has no samples"),
        ({}, [("1", 7, "GT", "0/1")], "is cut short or damaged"),
    ],
)
def test_a_vcf_that_cannot_be_converted_says_why(tmp_path, options, rows, message):
    with pytest.raises(GenotypeFormatError, match=message) as raised:
        convert_vcf(vcf_text(tmp_path / "v.vcf", rows, **options), tmp_path / "v.vcz")
    assert "partial" not in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == ["v.vcf"]


@pytest.mark.skipif(shutil.which("tabix") is None, reason="tabix, which indexes a VCF, is not installed")
def test_an_indexed_vcf_that_is_cut_short_is_refused(cohort, tmp_path):
    vcf = tmp_path / "c.vcf.gz"
    shutil.copy(cohort[3]["vcf"].with_name("c.vcf.gz"), vcf)
    subprocess.run(["tabix", "-p", "vcf", vcf], check=True)
    vcf.write_bytes(vcf.read_bytes()[:-200])
    with pytest.raises(GenotypeFormatError, match="is cut short or damaged"):
        convert_vcf(vcf, tmp_path / "c.vcz")


def test_what_is_no_vcf_is_not_given_to_a_converter(cohort, tmp_path):
    with pytest.raises(GenotypeFormatError, match="no VCF or BCF, but starts with"):
        convert_vcf(cohort[3]["bed"], tmp_path / "c.vcz")


def test_conversions_leave_what_others_write_alone(tmp_path):
    other = tmp_path / "v.vcz.partial"
    other.mkdir()
    (other / "chunk").write_text("of another conversion")
    vcf = vcf_text(tmp_path / "v.vcf", [("1", 7, "GT", "0/1", "1/1")])
    convert_vcf(vcf, tmp_path / "v.vcz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.vcf", "v.vcz", "v.vcz.partial"]
    assert (other / "chunk").exists()


def test_dosages_are_read_where_gt_is_declared_only(tmp_path, caplog):
    rows = [("1", p, "DS", "0.25", "1.5") for p in (7, 8)]
    path = convert_vcf(vcf_text(tmp_path / "v.vcf", rows), tmp_path / "v.vcz")
    assert "call_DS is read" not in caplog.text
    ds = dasklmm.open_genotypes(path)
    assert "call_genotype holds no call where it was looked into, so that call_DS is read" in caplog.text
    np.testing.assert_array_equal(ds["dosage"].values, [[0.25, 1.5]] * 2)
    assert ds.attrs["field"] == "dosage"
    assert dasklmm.open_genotypes(path, field="genotype").attrs["field"] == "genotype"
    caplog.clear()
    rows[1] = ("1", 8, "GT:DS", "0/1:1", "1/1:2")
    path = convert_vcf(vcf_text(tmp_path / "w.vcf", rows), tmp_path / "w.vcz")
    assert dasklmm.open_genotypes(path).attrs["field"] == "genotype"
    assert caplog.text.count("call_DS") == 0


def test_convert_on_the_command_line(cohort, tmp_path):
    _, _, _, paths = cohort
    vcfs = [str(p) for p in sorted(paths["vcf"].parent.glob("c?.vcf.gz"))]
    assert len(vcfs) == 3
    done = CliRunner().invoke(main, ["convert", *vcfs, str(tmp_path / "o.vcz"), "--quiet"])
    assert done.exit_code == 0, done.output
    assert "60 samples, 90 variants" in done.output
    plain = subprocess.run(
        [sys.executable, "-m", "dasklmm.cli", "convert", vcfs[0], str(tmp_path / "p.vcz")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "%|" not in plain.stderr  # a bar is for a terminal
    again = CliRunner().invoke(main, ["convert", *vcfs, str(tmp_path / "o.vcz")])
    assert again.exit_code == 1
    assert "exists already" in again.output


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("bgen", "bgen", "bgen"),
        ("pgen", "pgenlib", "pgen"),
        ("vcf", "cyvcf2", "vcf"),
        ("nc", "h5netcdf", "netcdf"),
    ],
)
def test_missing_extra(cohort, tmp_path, name, library, extra):
    _, _, _, paths = cohort
    vcf = paths["vcf"].with_name("c.vcf.gz")
    call = (
        f"dasklmm.convert_vcf({str(vcf)!r}, {str(tmp_path / 'x')!r})"
        if name == "vcf"
        else f"dasklmm.open_genotypes({str(paths[name])!r})"
    )
    blocked = [library, "netCDF4"] if name == "nc" else [library]
    # xarray asks whether a library is there; this hides it from that question as well
    code = f"""
import sys, importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in {blocked!r} else found(name, *a)
for name in {blocked!r}: sys.modules[name] = None
import dasklmm
try: {call}
except dasklmm.errors.MissingExtraError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'dasklmm[{extra}]'" in done.stdout
