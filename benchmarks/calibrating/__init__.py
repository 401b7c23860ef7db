"""How often is each p, interval and verdict of the analyses right? What benchmarks/calibration.py is made of."""
