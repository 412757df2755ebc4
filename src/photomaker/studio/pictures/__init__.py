"""What is done with drawn pictures: small faces redrawn, files written, sheets laid out."""
