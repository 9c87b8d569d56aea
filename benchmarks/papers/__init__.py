"""One file per published figure or table: setting, published values, verdict."""
