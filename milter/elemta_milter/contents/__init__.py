"""Contents: what is this file, whatever it is called? Kernels without configuration or trust: octets in, facts out."""
