"""ScienceWorld as an environment: its simulator in a Java process that is used again from episode to episode."""
