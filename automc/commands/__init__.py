"""What the commands of the command line do, one file a family; each imports what it needs when it is called."""
