"""What the model demands: architecture to operators to bytes. Knows no hardware."""
