"""Times w4tune's winners beside other W4A16 kernels, by one protocol, in one process."""
