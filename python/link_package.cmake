# cmake -DFROM=... -DTO=... -DTOOL=... -P: links the package's sources and the tool beside what was
# built, so that an edited source needs no build.
file(GLOB sources ${FROM}/*)
foreach(source IN LISTS sources)
  cmake_path(GET source FILENAME name)
  if(NOT name STREQUAL __pycache__)
    file(CREATE_LINK ${source} ${TO}/${name} SYMBOLIC)
  endif()
endforeach()
file(MAKE_DIRECTORY ${TO}/bin)
file(CREATE_LINK ${TOOL} ${TO}/bin/w4tune SYMBOLIC)
