"""Networks: `catalogue.py` names them (light); the other files build them."""
