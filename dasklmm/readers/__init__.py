"""Sources of genotypes and tables; one module a format."""
