"""What every service needs, free of any one service's domain."""
