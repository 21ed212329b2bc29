"""A network and a policy become an integer program, whose meaning the interpreter defines."""
