"""A server with the API of TEST_STORE and the built page of TEST_PAGE, on one origin."""

import os

from fastapi.staticfiles import StaticFiles

from milepost.web import auth, create_app

app = create_app(os.environ["TEST_STORE"], auth=auth.none())
app.mount("/page", StaticFiles(directory=os.environ["TEST_PAGE"], html=True))
