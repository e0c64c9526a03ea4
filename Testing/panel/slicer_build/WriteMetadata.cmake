# The extension's description, as the catalogue would get it.
foreach(_name HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  file(APPEND ${CMAKE_BINARY_DIR}/metadata.txt "${_name}=${EXTENSION_${_name}}\n")
endforeach()
