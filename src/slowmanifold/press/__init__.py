"""From text chapters to a book: text, executed notebook, page. Knows nothing of the science."""
