"""The pages of the test project: none."""

urlpatterns: list[object] = []
