"""stub"""
EPILOG = ""
def search_command() -> None:
    """stub"""
