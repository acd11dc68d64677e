"""Where key material lives: software under a seal; HSM and cloud come behind the same port."""
