"""What is written in OpenCL C: a kernel for each operation, and the C that gives them to a device."""
