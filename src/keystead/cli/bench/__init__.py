"""The benchmark: what a node signs a second beside what bounds it, as ratios within rounds."""
