"""The command line over ``service.client``: files in, a table, CSV, JSON or Parquet out."""
