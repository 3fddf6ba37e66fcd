"""What imgcls is measured against."""
