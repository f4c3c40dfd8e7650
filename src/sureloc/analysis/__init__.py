"""What comes after localization: drift, linking, filtering, images and structures from tables."""
