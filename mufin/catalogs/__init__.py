"""Files of shops, tools and data sets to products, relations and interactions."""
