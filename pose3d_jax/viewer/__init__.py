"""What a person looks at: pictures of poses and curves."""
