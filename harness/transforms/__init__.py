"""One file a transform: checkpoint + corpus -> a checkpoint that needs less."""
