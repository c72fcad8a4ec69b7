"""What the hardware supplies: NPUs, fabrics, efficiencies. Knows no model."""
