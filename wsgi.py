"""The WSGI app for any production server: `waitress-serve wsgi:app`. Settings come from the environment."""

from app import logs
from app.config import load_settings
from app.factory import create_app
from app.store.database import open_database

logs.configure()
settings = load_settings()
app = create_app(open_database(settings.database_url), settings)
