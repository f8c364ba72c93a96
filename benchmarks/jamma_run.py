"""Seconds of JAMMA's search for the variance ratios alone, by itself: python jamma_run.py PREFIX KINSHIP"""

import sys


def main(prefix: str, kinship: str) -> None:
    from jamma.gwas import gwas

    done = gwas(
        prefix,
        kinship_file=kinship,
        lmm_mode=4,
        maf=0.0,
        miss=1.0,
        output_prefix="jamma-alone",
        show_progress=False,
        no_telemetry=True,
    )
    print(f"compute {sum(each.timing.compute_s for each in done.phenotype_results)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
