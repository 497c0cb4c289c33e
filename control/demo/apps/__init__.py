"""The article's two applications: ordinary small HTTP services that know nothing of a mesh."""
