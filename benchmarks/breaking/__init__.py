"""What benchmarks/break.py does to promptgeo: one module each for kills, damaged files, full disks and odd inputs."""
