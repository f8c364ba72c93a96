"""What FaST-LMM does, in an interpreter of its own: python fastlmm_run.py PREFIX PHENOTYPES OUT loco|all"""

import sys


def main(prefix: str, phenotypes: str, out: str, loco: str) -> None:
    from fastlmm.association import single_snp

    single_snp(
        f"{prefix}.bed",
        phenotypes,
        leave_out_one_chrom=loco == "loco",
        count_A1=True,
        output_file_name=f"{out}.tsv",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
