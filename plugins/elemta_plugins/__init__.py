"""The plugins that come with Elemta: written with nothing but the public interface, as anybody's."""
