"""Mail authentication: pure kernels, octets and DNS answers in, results out; no configuration, no logging."""
