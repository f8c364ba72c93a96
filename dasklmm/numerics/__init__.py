"""Pure functions on NumPy arrays: the statistics of dasklmm, without Dask, xarray, Zarr or files."""
