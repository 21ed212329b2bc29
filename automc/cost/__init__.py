"""What a choice costs on a device: latency, energy, size and memory."""
